# Puts the reference module into the workspace and shows that the examples hold.
set -eu
cp "$FBENCH_SOLUTION/rag_eval.py" rag_eval.py
python3 -B - <<'PYTHON'
import json

import rag_eval

for case in json.load(open("examples.json")):
    expected = case.pop("expected")
    found = rag_eval.evaluate(**case)
    assert found.keys() == expected.keys() and found["skipped"] == expected["skipped"]
    for query, values in expected["queries"].items():
        assert all(abs(found["queries"][query][name] - value) < 1e-9 for name, value in values.items())
PYTHON
