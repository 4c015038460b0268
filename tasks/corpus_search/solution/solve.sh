# Puts the reference module into the workspace and searches the handbook that is there.
set -eu
cp "$FBENCH_SOLUTION/search.py" search.py
python3 -B - <<'PYTHON'
import json

import search

documents = [json.loads(line) for line in open("data/documents.jsonl", encoding="utf-8")]
index = search.build(documents, json.load(open("data/aliases.json", encoding="utf-8")))
qrels = json.load(open("data/qrels.json", encoding="utf-8"))
first = [qrels[name].get(search.search(index, text, 1)[0]) for name, text in json.load(open("data/queries.json")).items()]
print(f"{first.count(3)} of {len(first)} queries have a document about them on top")
PYTHON
