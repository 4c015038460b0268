"""A shell state that lasts from call to call: working folder and exported environment.

Each call gets a bash of its own, so that one that hangs cannot spoil the next. The state is a script in the sandbox's
home folder, written and read by bash inside; the host never looks at it.
"""

from fbench.engine.errors import ToolRefused
from fbench.engine.execs import ExecResult, cut_text, run_exec
from fbench.engine.seams import ExecRequest, ToolContext, ToolOutcome

DEFAULT_TIMEOUT_S = 120.0
MAX_ARGUMENT_BYTES = 100_000
"""Longer commands go through standard input; Linux takes no single argument of 128 KiB or more."""

_OUT_OF_TIME = 0.001

# Both texts are evaluated from line 1 of the wrapper, so that bash counts the lines of the command and not ours.
_WRAPPER = 'eval "$1"; eval "$__fbench_command"'

# Puts the state back. What the state does not know is unset, for the agent unset it; FBENCH_* are the sandbox's own
# and new in each call. A state that does not end in its mark is torn and is not used.
_RESTORE = r"""
__fbench_state=
for __fbench_dir in "${HOME-}" "${TMPDIR-}" /tmp; do
  if [[ -n $__fbench_dir && -d $__fbench_dir && -w $__fbench_dir ]]; then
    __fbench_state=$__fbench_dir/.fbench_shell_state
    break
  fi
done
if [[ -f $__fbench_state && -r $__fbench_state ]]; then
  { __fbench_text=$(<"$__fbench_state"); } 2>/dev/null
  if [[ $__fbench_text == *$'\n'__fbench_is_whole=1 ]]; then
    declare -A __fbench_own=()
    for __fbench_name in "${!FBENCH_@}"; do __fbench_own[$__fbench_name]=${!__fbench_name}; done
    for __fbench_name in $(compgen -e); do
      case $__fbench_name in PWD|OLDPWD|SHLVL|_) ;; *) unset -v "$__fbench_name" ;; esac
    done 2>/dev/null
    eval "$__fbench_text" 2>/dev/null
    for __fbench_name in "${!FBENCH_@}"; do unset -v "$__fbench_name"; done 2>/dev/null
    for __fbench_name in "${!__fbench_own[@]}"; do export "$__fbench_name=${__fbench_own[$__fbench_name]}"; done
    __fbench_old=${OLDPWD-}
    if builtin cd -- "$__fbench_cwd" 2>/dev/null; then
      if [[ -n $__fbench_old ]]; then OLDPWD=$__fbench_old; fi
    else
      PWD=$(builtin pwd -P)
      printf '[the working folder %s is gone; this runs in %s]\n' "$__fbench_cwd" "$PWD"
    fi
  else
    printf '[the saved working folder and environment were damaged and are not used]\n'
  fi
fi
unset -v __fbench_text __fbench_own __fbench_name __fbench_old __fbench_cwd __fbench_is_whole __fbench_dir
"""

# Writes the state when the shell ends: by itself, by `exit`, by `set -e`; `exec` and a kill leave the one before.
# A trap for EXIT that the command sets is kept aside and run after the state is written.
# POSIX mode, which an exported POSIXLY_CORRECT brings, takes no function called `trap`: it is left for that long.
_KEEP = r"""
if [[ -v POSIXLY_CORRECT ]]; then __fbench_posix=$POSIXLY_CORRECT; unset -v POSIXLY_CORRECT; fi
__fbench_on_exit=
__fbench_save() {
  set +aeux
  local __fbench_status=$1
  if [[ $BASHPID == "$$" && -n $__fbench_state ]]; then
    {
      local __fbench_new=$__fbench_state.$$ __fbench_end
      __fbench_end=$(builtin pwd; builtin printf x)
      builtin export -n __fbench_on_exit __fbench_state __fbench_command
      {
        builtin export -p && builtin export -pf &&
        builtin printf '__fbench_cwd=%q\n__fbench_is_whole=1\n' "${__fbench_end%$'\n'x}"
      } >|"$__fbench_new" && command -p mv -f -- "$__fbench_new" "$__fbench_state"
    } 2>/dev/null || command -p rm -f -- "$__fbench_new" 2>/dev/null
  fi
  return "$__fbench_status"
}
trap() {
  if [[ $BASHPID != "$$" ]]; then builtin trap "$@"; return; fi
  local __fbench_args=("$@")
  if [[ ${1-} == -- ]]; then shift; fi
  if (( $# == 0 )) || [[ $1 == -[lp]* ]]; then builtin trap "${__fbench_args[@]}"; return; fi
  if (( $# == 1 )); then set -- - "$1"; fi
  local __fbench_action=$1 __fbench_signal __fbench_others=()
  shift
  for __fbench_signal in "$@"; do
    case ${__fbench_signal^^} in
      EXIT|SIGEXIT|0) __fbench_on_exit=${__fbench_action#-} ;;
      *) __fbench_others+=("$__fbench_signal") ;;
    esac
  done
  if (( ${#__fbench_others[@]} )); then builtin trap -- "$__fbench_action" "${__fbench_others[@]}"; fi
}
builtin trap '{ __fbench_save "$?"; } 2>/dev/null; eval "$__fbench_on_exit"' EXIT
if [[ -v __fbench_posix ]]; then export POSIXLY_CORRECT=$__fbench_posix; unset -v __fbench_posix; fi
"""

_COMMAND_OF_ARGUMENT = "__fbench_command=$2\nset --\n"
_COMMAND_OF_STDIN = (
    "__fbench_command=$(command -p cat; builtin printf x)\n__fbench_command=${__fbench_command%x}\nset --\n"
)
_RUN_PYTHON = """
set --
__fbench_command='exec python -u -'
if ! command -v python >/dev/null; then __fbench_command='exec python3 -u -'; fi
"""


def bash_request(command: str) -> ExecRequest:
    """The exec that runs `command` in the shell's state and keeps what the state became."""
    raw = _encode(command, "command")
    if len(raw) > MAX_ARGUMENT_BYTES:
        return ExecRequest(_argv(_COMMAND_OF_STDIN + _RESTORE + _KEEP), stdin=raw)
    return ExecRequest(_argv(_COMMAND_OF_ARGUMENT + _RESTORE + _KEEP, command))


def python_request(code: str) -> ExecRequest:
    """The exec that runs `code` by `python` in the shell's state, which it reads and leaves as it is."""
    return ExecRequest(_argv(_RESTORE + _RUN_PYTHON), stdin=_encode(code, "code"))


async def run_for_model(request: ExecRequest, timeout_s: float, context: ToolContext) -> ToolOutcome:
    """Run the exec and put its outcome in words for the model. It never takes longer than what is left of the run."""
    left = context.remaining_s()
    limit = timeout_s if left is None else max(_OUT_OF_TIME, min(timeout_s, left))
    result = await run_exec(
        context.sandbox, request, timeout_s=limit, keep_bytes=context.keep_bytes, on_output=context.emit_output
    )
    return ToolOutcome(
        output=_describe(result, limit),
        exit_code=result.exit_code,
        dropped_bytes=result.dropped_bytes,
        timed_out=result.timed_out,
    )


def bounded(text: str, context: ToolContext) -> ToolOutcome:
    """The text as an outcome, its middle left out where it is longer than what is kept."""
    shown, dropped = cut_text(text, context.keep_bytes)
    return ToolOutcome(shown, dropped_bytes=dropped)


def _argv(prelude: str, *arguments: str) -> tuple[str, ...]:
    return ("bash", "--noprofile", "--norc", "-c", _WRAPPER, "bash", prelude, *arguments)


def _encode(text: str, what: str) -> bytes:
    if "\0" in text:
        msg = f"the {what} holds a NUL byte, which no program takes; write it as an escape, for example \\0 in printf"
        raise ToolRefused(msg)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"the {what} holds a character that is no valid Unicode (at {error.start}); write it as an escape"
        raise ToolRefused(msg) from None


def _describe(result: ExecResult, limit_s: float) -> str:
    notes = []
    if result.timed_out:
        notes.append(
            f"[timed out after {limit_s:g} s; the command and everything it started were ended, files it wrote remain. "
            "For long work run it in the background with & and redirect its output to a file, or raise timeout_s]"
        )
    if result.out_of_memory:
        notes.append("[ended because the sandbox's memory was used up; work on less data at a time]")
    if result.reason:
        notes.append(f"[{result.reason}]")
    if result.exit_code:
        notes.append(f"[exit code {result.exit_code}]")
    if not result.output and not notes:
        return "[no output]"
    gap = "\n" if result.output and notes and not result.output.endswith("\n") else ""
    return result.output + gap + "\n".join(notes)
