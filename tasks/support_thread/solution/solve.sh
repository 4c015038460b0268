# The feed as it is after the last of the user's messages; every message before is answered by it too.
set -eu
cp "$FBENCH_SOLUTION/feed.py" feed.py
python3 -B -m pytest -q -p no:cacheprovider test_feed.py
