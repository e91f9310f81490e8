"""A nightly run of lookalike as an Airflow DAG: index, then remove old snapshots.

The task's worker must see the pictures, the store and the `lookalike` command. Exit statuses decide
about retries: 1 is tried again, and continues where it was; 2 (the request is wrong), 3 (a limit
stopped publication, the last snapshot stands) and 4 (a fault that lasts) fail at once, as another
try would end the same way.

For Airflow 3, with apache-airflow-providers-standard.
"""

from __future__ import annotations

import subprocess
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException

STORE = "/srv/lookalike/store"
INDEX = [
    "lookalike",
    "index",
    "--config",
    "/srv/lookalike/nightly.yaml",
    "--images",
    "/srv/photos",
    "--store",
    STORE,
    "--metrics",
    "/var/lib/node_exporter/textfile_collector/lookalike.prom",
]
MEANINGS = {
    2: "the request is wrong",
    3: "not published, the last snapshot stands",
    4: "a fault that ends the same way every time",
}
PATIENCE_S = 15  # a run that is told to stop needs some seconds to leave all in order


def index() -> None:
    """Run lookalike, its output into the task's log."""
    with subprocess.Popen(
        INDEX, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="")
            status = process.wait()
        except BaseException:  # the task is stopped: so is the run, and the next one continues it
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status in MEANINGS:
        raise AirflowFailException(f"lookalike index: exit status {status}: {MEANINGS[status]}")
    if status:
        raise AirflowException(f"lookalike index: exit status {status}")


with DAG(
    dag_id="lookalike_nightly",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,  # a night that was missed is in the next one's listing
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
) as dag:
    run = PythonOperator(task_id="index", python_callable=index)
    sweep = BashOperator(
        task_id="gc", bash_command=f"lookalike gc --store {STORE} --keep-last 3 --keep-days 14"
    )
    run >> sweep
