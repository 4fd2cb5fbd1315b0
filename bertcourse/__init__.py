__version__ = "0.1.0"

# ONNX Runtime 1.29 and newer send usage data on Linux unless this is set before it is imported; see "What leaves your machine" in README.md.
import os as _os

_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
