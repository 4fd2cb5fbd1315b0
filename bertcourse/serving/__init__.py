"""An exported model behind HTTP: the predictor, the queue that makes batches, the application, the processes.

Written by hand. Nothing in it imports torch, transformers or datasets; `pip install bertcourse[serve]` brings what it needs,
and the container installs less still (deploy/requirements.txt).
"""
