# SPDX-License-Identifier: GPL-2.0-or-later
"""What a real shell offers when Tab is pressed behind a command line. test_completions.py asks.

Each function gets the folder of completion files (PREFIX/share) and the words typed so far, the last one
being completed, and returns the words offered.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.requirements import require_command

_BASH = """\
compopt() { :; }
source "$1" || exit
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"_${1//-/_}"
printf '%s\\n' "${COMPREPLY[@]}"
"""

# zsh completes only in its line editor, so an interactive one runs in a pseudo-terminal, where its way of
# offering words, compadd, is made to tell them as well.
_ZSH_SET_UP = """\
PS1= RPS1=
fpath=("$COMPLETIONS" $fpath)
autoload -U compinit
compinit -u -D
compadd() {
	local -a given offered
	given=("$@")
	if (( ! ${given[(I)-[OAD]]} )); then
		builtin compadd -O offered "$given[@]"
		(( $#offered )) && print -r -- "<offered>${(j:,:)offered}</offered>"
	fi
	builtin compadd "$given[@]"
}
ask() {
	zle offer
	print -r -- '<asked>'
}
zle -C offer list-choices _main_complete
zle -N ask
bindkey '^I' ask
print '<ready>'
"""
_ZSH_ASK = """\
zmodload zsh/zpty
zpty inner zsh -d -i
zpty -r inner output '*<ready>*'
zpty -w -n inner "$1"$'\\t'
zpty -r inner output '*<asked>*'
print -r -- "$output"
zpty -d inner
"""


def offered_by_bash(share: Path, words: list[str]) -> list[str]:
    script = share / "bash-completion/completions" / words[0]
    return _run(require_command("bash"), "-c", _BASH, "bash", str(script), *words).split()


def offered_by_fish(share: Path, words: list[str]) -> list[str]:
    """fish offers options only for a word that begins like one."""
    script = share / "fish/vendor_completions.d" / f"{words[0]}.fish"
    ask = "source $argv[1]; complete --do-complete=$argv[2]"
    lines = _run(require_command("fish"), "--no-config", "-c", ask, str(script), " ".join(words))
    return [line.partition("\t")[0] for line in lines.splitlines()]


def offered_by_zsh(share: Path, words: list[str]) -> list[str]:
    with TemporaryDirectory() as home:
        Path(home, ".zshrc").write_text(_ZSH_SET_UP)
        output = _run(
            *(require_command("zsh"), "-f", "-c", _ZSH_ASK, "zsh", " ".join(words)),
            COMPLETIONS=str(share / "zsh/site-functions"),
            ZDOTDIR=home,
            TERM="dumb",
        )
    parts = [part.partition("</offered>")[0] for part in output.split("<offered>")[1:]]
    return [word for part in parts for word in part.split(",")]


def _run(*argv: str, **environment: str) -> str:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env=os.environ | environment,
    ).stdout
