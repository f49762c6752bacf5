"""gpu-check.json: rows of one card and one binary, and the Markdown table made of them.

    python benches/gpu/record.py FILE...       prints the table of files of one card and binary
"""

import json
import pathlib
import sys

TOP = ["card", "driver", "torch", "commit", "ceiling_tflops", "copy_tb_s", "rows", "parts"]
ROW = [
    "part", "model", "impl", "batch", "size", "images_per_s", "mfu_ceiling", "mfu_datasheet",
    "peak_gb", "data_wait", "note",
]
IMPLS = ["catlip-fused", "catlip-plain", "timm-eager", "timm-compiled", "feed"]
# What the rows of one table have in common. The boot may differ: it is noted for each part.
SAME = ["card_uuid", "binary_sha256"]


def row(part, model, impl, batch, size, note, **numbers):
    """A row; numbers that are not given are not known."""
    assert impl in IMPLS, impl
    made = dict.fromkeys(ROW)
    made.update(part=part, model=model, impl=impl, batch=batch, size=size, note=note)
    for key, value in numbers.items():
        assert key in ROW, key
        made[key] = value
    return made


def key(made):
    """What a later measurement of the same replaces. In the search each setting has a row."""
    setting = made["note"].split(":")[0] if made["part"] == "peers" else ""
    return (made["part"], made["model"], made["impl"], made["batch"], made["size"], setting)


class Mixed(Exception):
    """Rows of two cards or two binaries would stand in one table."""


class Record:
    """A gpu-check.json that grows by parts."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.data = dict.fromkeys(TOP)
        self.data.update(rows=[], parts=[])
        if self.path.exists():
            self.data = json.loads(self.path.read_text())

    def refuses(self, identity):
        """Why a part of this identity may not stand here; None if it may."""
        for part in self.data["parts"]:
            for name in SAME:
                if part[name] != identity[name]:
                    return (
                        f"{self.path} holds part {part['part']} of {name} {part[name]}, "
                        f"not {identity[name]}"
                    )
        return None

    def begin(self, identity):
        """Makes it a file of this card and binary; what was there of others is moved aside."""
        why = self.refuses(identity)
        if why:
            number = 1
            while (aside := self.path.with_suffix(f".before-{number}.json")).exists():
                number += 1
            self.path.rename(aside)
            print(f"gpu-check: {why}: moved to {aside.name}", flush=True)
            self.__init__(self.path)
        for name in ["card", "driver", "torch", "commit"]:
            self.data[name] = identity[name]

    def add(self, identity, rows, **more):
        """Adds what a part gave; rows that were measured before are replaced."""
        why = self.refuses(identity)
        if why:
            raise Mixed(why)
        # What was measured is not forgotten for what could not be measured again.
        known = {key(made): made for made in self.data["rows"]}
        for made in rows:
            old = known.get(key(made))
            if old is None or made["images_per_s"] is not None or old["images_per_s"] is None:
                known[key(made)] = made
        self.data["rows"] = list(known.values())
        name = identity["part"]
        before = [part for part in self.data["parts"] if part["part"] == name]
        kept = [part for part in self.data["parts"] if part["part"] != name]
        runs, run = before[0]["runs"] if before else [], {
            "boot": identity["boot"], "date": identity["date"]
        }
        # A part adds what it has as it goes.
        runs = runs if runs[-1:] == [run] else [*runs, run]
        old = {name: value for name, value in (before or [{}])[0].items() if name != "skipped"}
        for name, value in more.items():
            # What was noted of other rows stays.
            if isinstance(value, dict):
                more[name] = {**old.get(name, {}), **value}
        merged = {**old, **identity, **more, "runs": runs}
        self.data["parts"] = [*kept, merged]
        self.rate()

    def rate(self):
        """Shares of the ceilings, for all rows, by the operations that their parts note."""
        parts = {part["part"]: part for part in self.data["parts"]}
        ceiling = self.data["ceiling_tflops"]
        for made in self.data["rows"]:
            part = parts.get(made["part"], {})
            flops = part.get("image_gflops", {}).get(f"{made['model']} {made['size']}")
            rate = made["images_per_s"]
            if rate is None or flops is None:
                continue
            tflops = rate * flops / 1e3
            made["mfu_ceiling"] = round(tflops / ceiling, 4) if ceiling else None
            datasheet = part.get("datasheet_tflops")
            made["mfu_datasheet"] = round(tflops / datasheet, 4) if datasheet else None

    def write(self):
        """Whole or not at all; the table beside it."""
        for path, text in [
            (self.path, json.dumps(self.data, indent=1) + "\n"),
            (self.path.with_suffix(".md"), table([self.data])),
        ]:
            new = path.with_name(path.name + ".tmp")
            new.write_text(text)
            new.replace(path)


def table(files):
    """Markdown of files of one card and binary."""
    parts = [part for data in files for part in data["parts"]]
    for name in SAME:
        found = {part[name] for part in parts}
        if len(found) > 1:
            raise Mixed(f"these files are of {len(found)} {name}: {', '.join(sorted(found))}")
    first = files[0]
    lines = [f"# {first['card']}, driver {first['driver']}, torch {first['torch']}", ""]
    known = {}
    for data in files:
        for made in data["rows"]:
            known[key(made)] = made
    rows = list(known.values())
    ceiling = next((data["ceiling_tflops"] for data in files if data["ceiling_tflops"]), None)
    copy = next((data["copy_tb_s"] for data in files if data["copy_tb_s"]), None)
    lines += [
        f"Commit {first['commit']}. Measured ceilings: bf16 product {text(ceiling)} TFLOP/s, copy "
        f"{text(copy)} TB/s (read + written).",
        "",
        "| part | model | size | batch | impl | images/s | × eager | × compiled | MFU ceiling "
        "| MFU sheet | peak GB | data wait | note |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for made in rows:
        ratios = [ratio(rows, made, f"timm-{peer}") for peer in ["eager", "compiled"]]
        cells = [
            made["part"], made["model"], made["size"], text(made["batch"]), made["impl"],
            text(made["images_per_s"]), *ratios, percent(made["mfu_ceiling"]),
            percent(made["mfu_datasheet"]), text(made["peak_gb"]), percent(made["data_wait"]),
            made["note"],
        ]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines += ["", "| part | date | card | boot | SHA-256 of catlip-train |"]
    lines.append("|---|---|---|---|---|")
    for part in parts:
        for run in part["runs"]:
            sha, uuid = part["binary_sha256"][:16], part["card_uuid"]
            lines.append(f"| {part['part']} | {run['date']} | {uuid} | {run['boot']} | {sha}… |")
    lines += more_tables(parts)
    return "\n".join(lines) + "\n"


def more_tables(parts):
    """The ceilings in full, and every test."""
    lines = []
    for part in parts:
        for name in ["products", "attention"]:
            if part.get(name):
                lines += ["", f"| {name} | TFLOP/s | µs |", "|---|---|---|"]
                for made in part[name]:
                    shown = made.get("skipped") or text(made["tflops"])
                    lines.append(f"| {made['name']} | {shown} | {text(made.get('micros'))} |")
        if part.get("skipped"):
            lines += ["", f"Part {part['part']}: {part['skipped']}."]
        if part.get("tests"):
            lines += ["", "```", *part["tests"], "```"]
    return lines


def ratio(rows, made, peer):
    """A row's images a second by those of the peer in the same part, size and batch."""
    if not made["impl"].startswith("catlip") or made["images_per_s"] is None:
        return ""
    for other in rows:
        same = all(other[name] == made[name] for name in ["part", "size", "batch"])
        # The peer has the linear stem only.
        is_peer = other["impl"] == peer and other["model"] == made["model"].split("+")[0]
        if same and is_peer and other["images_per_s"]:
            return f"{made['images_per_s'] / other['images_per_s']:.3f}"
    return ""


def percent(share):
    return "" if share is None else f"{100 * share:.1f} %"


def text(value):
    if value is None:
        return ""
    return f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    try:
        print(table([json.loads(pathlib.Path(path).read_text()) for path in sys.argv[1:]]))
    except Mixed as mixed:
        sys.exit(f"error: {mixed}")
