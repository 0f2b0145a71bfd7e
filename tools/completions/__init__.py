# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completions, generated from the argparse parsers; one module for each shell."""
