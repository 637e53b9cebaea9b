"""The two names of torchvision that facenet-pytorch imports, for machines where no CPU build of it can be had.

Only tests put this folder on ``sys.path``, and only where the real torchvision is missing.
"""
