"""python -m tinynet data/train.csv [SEED]: trains and prints what came of it."""

import sys

from tinynet.data import read_rows
from tinynet.training import train

x, y = read_rows(sys.argv[1])
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
network, history = train(x, y, classes=int(y.max()) + 1, seed=seed)
for epoch in history:
    print(f"epoch {epoch['epoch']:2d}  loss {epoch['loss']:.4f}  validation accuracy {epoch['accuracy']:.3f}")
print(f"best validation accuracy {max(epoch['accuracy'] for epoch in history):.3f}")
