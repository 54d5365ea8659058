"""`python -m runtime COMMAND`.

check-interpreter   can this Python host Triton's stub?
preflight           can the service be started here, with these settings?
serve               start the service and stay with it
triton              become tritonserver (run by supervisord)
gateway             become the gateway (run by supervisord)
watchdog            restart Triton when its model is dead or hung (run by supervisord)
webui               become the web page (run by supervisord, if WEBUI=1)
mps                 become NVIDIA's MPS daemon (run by supervisord, see NVIDIA_MPS)
fatal-listener      end the service when a program is beyond help (run by supervisord)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from runtime.errors import StartError

# Each imports what it needs when it runs: `check-interpreter` has to answer on Pythons that cannot run the rest.


def check_interpreter() -> int:
    """Say whether this Python can host Triton's stub."""
    from runtime.interpreter import Interpreter

    python = Interpreter.running()
    problem = python.problem()
    if problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"{python.executable}: Python {python.version_text} with {python.library_name}, fit for Triton's backend")
    return 0


def run_preflight() -> int:
    """Check this machine and these settings."""
    from runtime.preflight import main as preflight_main

    return preflight_main()


def run_service() -> int:
    """Start the service and stay with it."""
    from runtime.launcher import serve

    return serve(os.environ)


def become_triton() -> int:
    """Replace this process by tritonserver."""
    from runtime.triton_command import run_triton

    run_triton(os.environ)


def become_gateway() -> int:
    """Replace this process by the gateway."""
    from runtime.gateway_command import run_gateway

    run_gateway()


def run_watchdog() -> int:
    """Watch the model."""
    from runtime.watchdog import main as watchdog_main

    return watchdog_main(os.environ)


def become_web_page() -> int:
    """Replace this process by the web page."""
    from runtime.web_page_command import run_web_page

    run_web_page(os.environ)


def become_mps() -> int:
    """Replace this process by NVIDIA's MPS control daemon."""
    from runtime.mps_command import run_mps

    run_mps(os.environ)


def run_fatal_listener() -> int:
    """Listen to supervisord's events."""
    from runtime.fatal_listener import main as listener_main

    return listener_main(os.environ)


COMMANDS: dict[str, Callable[[], int]] = {
    "check-interpreter": check_interpreter,
    "preflight": run_preflight,
    "serve": run_service,
    "triton": become_triton,
    "gateway": become_gateway,
    "watchdog": run_watchdog,
    "webui": become_web_page,
    "mps": become_mps,
    "fatal-listener": run_fatal_listener,
}


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status."""
    command = COMMANDS.get(arguments[0]) if len(arguments) == 1 else None
    if command is None:
        print(f"usage: python -m runtime {'|'.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return command()
    except StartError as exc:
        print(f"cannot start: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
