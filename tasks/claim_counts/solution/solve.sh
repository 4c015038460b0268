# Puts the reference script into the workspace and runs it.
set -eu
cp "$FBENCH_SOLUTION/predict.py" predict.py
python3 predict.py --train data/train.csv --input data/input.csv --output out/expected.csv
