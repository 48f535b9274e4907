"""Prints what a script says to --help, alone, with each command and with each preset, as JSON.

python tests/golden/ask.py SCRIPT.py CORES          CORES: how many this machine is said to have
"""

import contextlib
import io
import json
import os
import re
import runpy
import sys

script, cores, said = sys.argv[1], int(sys.argv[2]), {}
os.cpu_count = lambda: cores


def ask(*args):
    sys.argv = [script, *args, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    said["-".join([script.removesuffix(".py"), *(a.lstrip("-") for a in args)])] = out.getvalue()
    return out.getvalue()


def presets(text, *args):
    for name in (re.findall(r"--config [{](.*?)[}]", text) or [""])[0].split(",")[1:]:
        ask(*args, "--config", name)


top = ask()
presets(top)
commands = re.findall(r"^commands: (.+(?:\n.+)*)", top, re.M)
for command in re.split(r",\s*", commands[-1].strip()) if commands else []:
    presets(ask(command), command)
print(json.dumps(said))
