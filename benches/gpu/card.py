"""The card: what it is, and what its clocks and watts were while something ran."""

import pathlib
import shutil
import subprocess
import threading
import time

# Dense bf16 of NVIDIA's data sheets, in 10^12 operations a second, by what a card's name holds;
# the first that fits.
DATASHEET_TFLOPS = [
    ("H200 NVL", 835.5),
    ("H200", 989.5),
    ("GH200", 989.5),
    ("H100 NVL", 835.5),
    ("H100 PCIe", 756.0),
    ("H100", 989.5),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("RTX 4090", 165.2),
    ("RTX 3090", 71.0),
]
SAMPLE_SECS = 0.5
FIELDS = "clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu,memory.used"


def datasheet_tflops(name):
    """Of a card's name; None where we know none."""
    found = (tflops for part, tflops in DATASHEET_TFLOPS if part in name)
    return next(found, None)


def ask(fields, kind="gpu", index=0):
    """What nvidia-smi says of the fields, as a list; None where it is not there."""
    if not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", f"--query-{kind}={fields}", "--format=csv,noheader,nounits"]
    if kind == "gpu":
        command.append(f"--id={index}")
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    lines = told.stdout.strip().splitlines()
    return [part.strip() for part in lines[0].split(",")] if lines else None


def boot_id():
    """Of this start of the machine."""
    path = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def identity(is_cpu):
    """Name, UUID and driver of the card, and the boot."""
    told = None if is_cpu else ask("name,uuid,driver_version")
    if told is None:
        return {"card": "cpu", "card_uuid": "none", "driver": "none", "boot": boot_id()}
    name, uuid, driver = told
    return {"card": name, "card_uuid": uuid, "driver": driver, "boot": boot_id()}


class Watcher:
    """Notes clocks and watts twice a second while something runs."""

    def __init__(self, is_cpu):
        self.samples = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.is_on = not is_cpu and shutil.which("nvidia-smi") is not None

    def __enter__(self):
        if self.is_on:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        if self.is_on:
            self.thread.join()

    def watch(self):
        while not self.ended.wait(SAMPLE_SECS):
            told = ask(FIELDS)
            if told:
                self.samples.append([time.time(), *map(number, told)])

    def busy(self):
        """Median SM clock in MHz and watts over the samples in which the card worked."""
        at_work = [sample for sample in self.samples if (sample[5] or 0) >= 50]
        if not at_work:
            return None
        return {"sm_mhz": median(s[1] for s in at_work), "watts": median(s[3] for s in at_work)}


def number(text):
    try:
        return float(text)
    except ValueError:
        return None


def median(values):
    ordered = sorted(value for value in values if value is not None)
    return ordered[len(ordered) // 2] if ordered else None
