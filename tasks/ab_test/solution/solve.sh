# Puts the reference analysis into the workspace and runs it on the examples.
set -eu
cp "$FBENCH_SOLUTION/analysis.py" analysis.py
python3 -B - <<'PYTHON'
import glob
import json

import analysis

for name in sorted(glob.glob("data/*.jsonl")):
    for line in open(name):
        print(name, analysis.analyse(json.loads(line)))
PYTHON
