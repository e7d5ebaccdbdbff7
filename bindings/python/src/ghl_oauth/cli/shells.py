"""Completion scripts for shells, made from the argument parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Callable


@dataclass(frozen=True)
class _Argument:
    names: tuple[str, ...]
    """The spellings of an option; empty for a positional argument."""
    help: str
    takes_value: bool
    choices: tuple[str, ...]
    is_file: bool
    label: str
    repeated: bool


@dataclass(frozen=True)
class _Command:
    names: tuple[str, ...]
    help: str
    arguments: tuple[_Argument, ...]


def _arguments(parser: argparse.ArgumentParser) -> Iterator[_Argument]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        yield _Argument(
            tuple(action.option_strings),
            action.help or "",
            not action.option_strings or action.nargs != 0,
            tuple(str(choice) for choice in action.choices or ()),
            action.metavar == "FILE",
            str(action.metavar or action.dest).lower(),
            action.nargs in ("*", "+"),
        )


def _commands(parser: argparse.ArgumentParser) -> Iterator[_Command]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            by_parser: dict[int, list[str]] = {}
            for name, command in action.choices.items():
                by_parser.setdefault(id(command), []).append(name)
            for names in by_parser.values():
                command = action.choices[names[0]]
                (summary,) = (
                    each.help for each in action._choices_actions if each.dest == names[0]
                )
                yield _Command(tuple(names), summary or "", tuple(_arguments(command)))


def _bash(parser: argparse.ArgumentParser) -> str:
    commands = list(_commands(parser))
    general = list(_arguments(parser))
    every = [name for command in commands for name in command.names]
    valued = [name for each in general if each.takes_value for name in each.names]
    lines = [
        "# bash completion for ghl-oauth",
        "_ghl_oauth() {",
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}",
        "    local command= words= index IFS=$' \\t\\n'",
        "    COMPREPLY=()",
        "    if [[ $word == = ]]; then word=; else",
        "        [[ $before == = ]] && before=${COMP_WORDS[COMP_CWORD - 2]}",
        "    fi",
        "    for ((index = 1; index < COMP_CWORD; index++)); do",
        "        case ${COMP_WORDS[index]} in",
        f"            {'|'.join(valued)}) ((index++)) ;;",
        "            -*|=) ;;",
        "            *) command=${COMP_WORDS[index]}; break ;;",
        "        esac",
        "    done",
        "    case $command:$before in",
    ]
    for prefix, options in [("*", general), *((c.names[0], c.arguments) for c in commands)]:
        for each in options:
            if not each.names or not each.takes_value:
                continue
            pattern = "|".join(f"{prefix}:{name}" for name in each.names)
            lines.append(f"        {pattern}) {_bash_value(each)} ;;")
    lines += ["    esac", "    case $command in"]
    own = " ".join([*every, *(name for each in general for name in each.names)])
    lines.append(f"        '') words='{own}' ;;")
    for command in commands:
        words = [name for each in command.arguments for name in each.names]
        words += [choice for each in command.arguments if not each.names for choice in each.choices]
        files = any(not each.names and each.is_file for each in command.arguments)
        lines.append(f"        {'|'.join(command.names)})")
        if files:
            lines.append("            [[ $word != -* ]] && { _ghl_oauth_files; return; }")
        lines.append(f"            words='{' '.join(words)}' ;;")
    lines += [
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "}",
        "_ghl_oauth_files() {",
        "    local IFS=$'\\n'",
        '    COMPREPLY=($(compgen -f -- "$word"))',
        "}",
        "complete -o filenames -F _ghl_oauth ghl-oauth",
    ]
    return "\n".join(lines) + "\n"


def _bash_value(argument: _Argument) -> str:
    if argument.choices:
        return f"COMPREPLY=($(compgen -W '{' '.join(argument.choices)}' -- \"$word\")); return"
    return "_ghl_oauth_files; return" if argument.is_file else "return"


def _zsh(parser: argparse.ArgumentParser) -> str:
    commands = list(_commands(parser))
    lines = [
        "#compdef ghl-oauth",
        "_ghl_oauth() {",
        "    local context state state_descr line",
        "    local -a commands",
        "    typeset -A opt_args",
        "    commands=(",
    ]
    for command in commands:
        for name in command.names:
            lines.append(f"        {_quote(f'{name}:{command.help}')}")
    lines += ["    )", "    _arguments -C \\"]
    lines += [f"        {spec} \\" for spec in _zsh_specs(list(_arguments(parser)))]
    lines += [
        "        '1:command:->command' '*::argument:->argument'",
        "    case $state in",
        "        command) _describe -t commands command commands ;;",
        "        argument)",
        "            case $words[1] in",
    ]
    for command in commands:
        lines.append(f"                {'|'.join(command.names)})")
        lines.append("                    _arguments \\")
        specs = _zsh_specs(command.arguments)
        lines += [f"                        {spec} \\" for spec in specs[:-1]]
        lines += [f"                        {specs[-1]} ;;"]
    lines += [
        "            esac ;;",
        "    esac",
        "}",
        "if [[ $funcstack[1] == _ghl-oauth ]]; then",
        '    _ghl_oauth "$@"',
        "else",
        "    compdef _ghl_oauth ghl-oauth",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _zsh_specs(arguments: Sequence[_Argument]) -> list[str]:
    specs = []
    for each in arguments:
        value = ""
        if each.takes_value:
            action = f"({' '.join(each.choices)})" if each.choices else ""
            value = f":{_zsh_text(each.label)}:{'_files' if each.is_file else action}"
        if each.names:
            specs += [_quote(f"{name}[{_zsh_text(each.help)}]{value}") for name in each.names]
        else:
            specs.append(_quote(("*" if each.repeated else "") + value))
    return specs


def _zsh_text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "[]:\\" else letter for letter in text)


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(parser: argparse.ArgumentParser) -> str:
    lines = ["# fish completion for ghl-oauth", "complete -c ghl-oauth -f"]
    commands = list(_commands(parser))
    for each in _arguments(parser):
        lines.append(f"complete -c ghl-oauth -n __fish_use_subcommand{_fish_option(each)}")
    for command in commands:
        for name in command.names:
            lines.append(
                f"complete -c ghl-oauth -n __fish_use_subcommand -a {name} "
                f"-d {_fish_text(command.help)}"
            )
        condition = f"-n '__fish_seen_subcommand_from {' '.join(command.names)}'"
        for each in command.arguments:
            if each.names:
                lines.append(f"complete -c ghl-oauth {condition}{_fish_option(each)}")
            elif each.choices:
                lines.append(f"complete -c ghl-oauth {condition} -a '{' '.join(each.choices)}'")
            elif each.is_file:
                lines.append(f"complete -c ghl-oauth {condition} -F")
    return "\n".join(lines) + "\n"


def _fish_option(argument: _Argument) -> str:
    text = ""
    for name in argument.names:
        text += f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}"
    if argument.choices:
        text += f" -x -a '{' '.join(argument.choices)}'"
    elif argument.takes_value:
        text += " -r -F" if argument.is_file else " -x"
    return f"{text} -d {_fish_text(argument.help)}"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[argparse.ArgumentParser], str]] = {
    "bash": _bash,
    "fish": _fish,
    "zsh": _zsh,
}
"""The scripts by the name of the shell."""
