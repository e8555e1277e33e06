"""What this Python has of CUDA, as one line of JSON. Needs nothing but the standard library.

    gpu_facts.py [quick]        quick: only whether PyTorch is there, without loading it
"""

import glob
import importlib.util
import json
import os
import platform
import sys

facts = {"python": platform.python_version(), "executable": sys.executable, "torch": None}
spec = importlib.util.find_spec("torch")
if spec and "quick" in sys.argv:
    facts["torch"] = "there"
elif spec:
    try:
        import torch

        facts["torch"] = torch.__version__
        facts["torch_cuda"] = torch.version.cuda
        facts["cuda_available"] = torch.cuda.is_available()
        if facts["cuda_available"]:
            facts["devices"] = torch.cuda.device_count()
            facts["device"] = torch.cuda.get_device_name(0)
        nccl = getattr(torch.cuda, "nccl", None)
        if nccl and facts["cuda_available"]:
            facts["nccl"] = ".".join(map(str, nccl.version()))
    except Exception as error:  # noqa: BLE001: a PyTorch that does not load is a fact
        facts["torch_error"] = repr(error)[:300]
folders = []
if spec and spec.origin:
    packages = os.path.dirname(os.path.dirname(spec.origin))
    folders = sorted(glob.glob(packages + "/nvidia/*/lib")) + [packages + "/torch/lib"]
facts["libraries"] = folders
print(json.dumps(facts))
