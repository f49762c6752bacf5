"""Makes events.hex: two events as TensorBoard writes them. Needs tensorboard: run it as it is."""

import io
import pathlib

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

file = io.BytesIO()
file.close = lambda: None
writer = RecordWriter(file)
first = event_pb2.Event(wall_time=1.0, step=0, file_version="brain.Event:2")
value = summary_pb2.Summary.Value(tag="loss", simple_value=1.5)
second = event_pb2.Event(wall_time=2.0, step=300, summary=summary_pb2.Summary(value=[value]))
for event in (first, second):
    writer.write(event.SerializeToString())
pathlib.Path(__file__).with_name("events.hex").write_text(file.getvalue().hex() + "\n")
