"""Print what the pyproject.toml beside this asks for, to be installed before the code is there.

python requirements.py EXTRA,EXTRA
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).with_name("pyproject.toml").read_text())["project"]
print(*project["dependencies"], sep="\n")
for extra in filter(None, sys.argv[1].split(",")):
    print(*project["optional-dependencies"][extra], sep="\n")
