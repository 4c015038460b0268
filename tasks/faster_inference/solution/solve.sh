# Puts the reference scorer into the workspace and measures it.
set -eu
cp "$FBENCH_SOLUTION/scorer.py" scorer.py
python3 -B try.py
