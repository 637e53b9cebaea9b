import sys
from pathlib import Path

# facenet-pytorch imports torchvision for two names. The real one wins where it is installed.
sys.path.append(str(Path(__file__).parents[1] / "standin"))
