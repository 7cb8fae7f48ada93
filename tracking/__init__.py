"""MLflow, a view of the run directories. `publish` makes it equal to them; `live` shows a training while it runs."""

from textvae.addresses import shown
from tracking.place import tracking_uri
from tracking.record import Point, Record, RunIdentity, epoch_points, numbers
from tracking.store import connect

__all__ = ["Point", "Record", "RunIdentity", "connect", "epoch_points", "numbers", "shown", "tracking_uri"]
