"""The Celery application: its client and its workers import it."""

import os

import tasks
from celery import Celery

app = Celery("benchmark", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    task_serializer="pickle",  # NumPy arrays are beyond JSON
    result_serializer="pickle",
    accept_content=["json", "pickle"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"queue_order_strategy": "priority"},
    task_default_priority=5,  # 0 is the most urgent with Redis
    worker_hijack_root_logger=False,
)
FUNCTIONS = (
    tasks.nothing,
    tasks.square,
    tasks.squares,
    tasks.pause,
    tasks.hold,
    tasks.total,
    tasks.make,
    tasks.touch_file,
)
BY_FUNCTION = {function: app.task(name=f"bench.{function.__name__}")(function) for function in FUNCTIONS}
