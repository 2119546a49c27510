"""Prepare the development environment: `python3 tools/setup_env.py VENV EXTRA...` (called by the Makefile).

Debian packages are installed when we are root; else what is missing is named and setup goes on without it.
Standard library only: nothing else is there yet. No syntax newer than Python 3.6, so that an old Python can
say that it is too old.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from compiled_kernels import uncompiled

ROOT = Path(__file__).resolve().parent.parent
OWN_UV = ROOT / "build" / "uv"
OLDEST_PYTHON = (3, 11)
OLDEST_UV = (0, 8)  # the first with extra-build-variables


def say(line):
    """Print one line at once, before what the next command prints."""
    print(f"setup: {line}", flush=True)


def run(*command, **environment):
    """Run a command without standard input; return whether it succeeded."""
    env = {**os.environ, **environment}
    return subprocess.run(command, check=False, stdin=subprocess.DEVNULL, env=env, cwd=ROOT).returncode == 0


# --- what the machine lacks -------------------------------------------------------------------------------


def missing_packages():
    """Return {Debian package: what is lost without it} for what this machine lacks."""
    lost = {}
    if not find_uv() and not find_spec("pip") and not find_spec("ensurepip"):
        lost["python3-venv"] = "uv cannot be installed without pip or venv"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        lost["gcc"] = lost["libc6-dev"] = "no C compiler: kernels are served by their NumPy twins"
    elif not has_libc_headers(compiler):
        lost["libc6-dev"] = "no C headers: kernels are served by their NumPy twins"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        lost["python3-dev"] = "no Python headers: kernels are served by their NumPy twins"
    if not shutil.which("R"):
        lost["r-base-core"] = "no R: R cells and their tests are skipped"
    if not shutil.which("octave"):
        lost["octave"] = "no Octave: Octave cells and their tests are skipped"
    if not shutil.which("gnuplot"):
        lost["gnuplot-nox"] = lost["fonts-freefont-otf"] = "no gnuplot: Octave cells draw no pictures"
    return {**lost, **missing_for_tests()}


#: program -> the packages that bring it; only tests need these, and start them by themselves
SERVERS = {"ip": ["iproute2"], "sshd": ["openssh-server"], "slurmctld": ["slurm-wlm", "munge"]}


def may_install_servers():
    """Return whether this is a container: elsewhere the packages would start services of their own."""
    return os.geteuid() == 0 and not Path("/run/systemd/system").exists() and Path("/usr/sbin/policy-rc.d").exists()


def missing_for_tests():
    """Return {Debian package: what is skipped without it}: terminals, browsers, MPI, other hosts."""
    lost = {}
    if not shutil.which("tmux"):
        lost["tmux"] = "no tmux: tests in a terminal are skipped"
    if not shutil.which("chromium") and not shutil.which("google-chrome"):
        lost["chromium"] = "no Chromium: tests in JupyterLab are skipped"
    if not shutil.which("mpiexec"):
        lost["openmpi-bin"] = "no MPI: tests of MPI engines are skipped"
    if may_install_servers():
        for program, packages in SERVERS.items():
            if not shutil.which(program):
                lost.update(dict.fromkeys(packages, f"no {program}: tests of engines on other hosts are skipped"))
    return lost


def has_libc_headers(compiler):
    """Return whether the C compiler finds <stdlib.h>."""
    program = b"#include <stdlib.h>\n"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [compiler, "-E", "-x", "c", "-"]
    return subprocess.run(command, check=False, input=program, **quiet).returncode == 0


def add_missing_packages():
    """Install what the machine lacks when we may; say what is lost otherwise."""
    lost = missing_packages()
    if lost.get("python3-dev") and not sys.base_prefix.startswith("/usr"):
        say(lost.pop("python3-dev"))  # Debian's headers are for Debian's Python
    if lost and os.geteuid() == 0 and shutil.which("apt-get"):
        say("apt-get install " + " ".join(lost))
        apt_install(list(lost))
        lost = missing_packages()
    for reason in dict.fromkeys(lost.values()):
        packages = [package for package in lost if lost[package] == reason]
        say(f"{reason} (as root on Debian: apt-get install {' '.join(packages)})")


def apt_install(packages):
    """Install Debian packages quietly; their log is shown only when that fails."""
    log = ROOT / "build" / "apt.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as stream:
        for command in ["update"], ["install", "-y", "--no-install-recommends", *packages]:
            failed = subprocess.run(
                ["apt-get", "-q", *command],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            ).returncode
    if failed:
        say("apt-get failed; the end of its log:")
        print("".join(log.read_text().splitlines(True)[-5:]), flush=True)


# --- uv ---------------------------------------------------------------------------------------------------


def find_uv():
    """Return the path of a uv that is new enough, or None."""
    for candidate in shutil.which("uv"), str(OWN_UV / "bin" / "uv"):
        if candidate and Path(candidate).exists() and uv_version(candidate) >= OLDEST_UV:
            return candidate
    return None


def uv_version(path):
    """Return (major, minor) of a uv; (0, 0) when it does not run (a version manager's empty shim)."""
    answer = subprocess.run([path, "--version"], check=False, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = re.match(rb"uv (\d+)\.(\d+)", answer.stdout)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


def install_uv():
    """Install uv into build/uv, with pip or from a venv, whichever this Python has."""
    if not find_spec("pip") and not find_spec("ensurepip"):
        sys.exit("setup: cannot go on without uv; with pip, venv or uv itself installed, run make again")
    say("installing uv into build/uv")
    pip = [sys.executable, "-m", "pip"]
    if not find_spec("pip"):
        venv = OWN_UV / "venv"
        if not run(sys.executable, "-m", "venv", str(venv)):
            sys.exit("setup: python3 -m venv failed, see above")
        pip = [str(venv / "bin" / "python"), "-m", "pip"]
    run(*pip, "install", "--quiet", "--upgrade", "--target", str(OWN_UV), "uv", PIP_ROOT_USER_ACTION="ignore")
    return find_uv() or sys.exit(
        "setup: uv could not be installed. Install it in your own way, put it on PATH, and run make again."
    )


def sync(uv, venv, extras):
    """Bring `venv` in step with pyproject.toml, and compile the kernels."""
    say(f"Python packages into {venv} ({', '.join(extras)}), kernels compiled")
    os.environ.pop("VIRTUAL_ENV", None)
    command = [uv, "sync", "--python", sys.executable, *(f"--extra={extra}" for extra in extras)]
    # a library built earlier may be gone from the source tree while uv still holds its record of it
    command += ["--reinstall-package", "pxtools"]
    if not sys.stderr.isatty():
        command.append("--quiet")
    return run(
        *command,
        UV_PROJECT_ENVIRONMENT=venv,
        UV_PYTHON_DOWNLOADS="never",
        RPY2_CFFI_MODE="ABI",  # R is then needed neither to install nor, without R cells, to run
    )


def main():
    """Make the environment named on the command line ready."""
    venv, *extras = sys.argv[1:]
    if sys.version_info[:2] < OLDEST_PYTHON:
        sys.exit(
            f"setup: pxtools needs Python {'.'.join(map(str, OLDEST_PYTHON))} or newer; python3 here is "
            f"{platform.python_version()}. With a newer one installed: make PYTHON=python3.12 ..."
        )
    add_missing_packages()
    uv = find_uv() or install_uv()
    if not sync(uv, venv, extras):
        sys.exit("setup: uv could not prepare the environment, see above")
    missing = uncompiled(ROOT / "pxtools" / "kernels")
    if missing:
        say(f"not compiled: {', '.join(missing)}; their NumPy twins serve (make kernels shows why)")


if __name__ == "__main__":
    main()
