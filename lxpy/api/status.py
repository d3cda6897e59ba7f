"""LXD's status codes: of operations, of instances, and their texts."""

OPERATION_CREATED = 100
STARTED = 101
STOPPED = 102
RUNNING = 103
CANCELLING = 104
PENDING = 105
STARTING = 106
STOPPING = 107
ABORTING = 108
FREEZING = 109
FROZEN = 110
THAWED = 111
ERROR = 112
READY = 113
SUCCESS = 200
FAILURE = 400
CANCELLED = 401

TEXT: dict[int, str] = {
    OPERATION_CREATED: "Operation created",
    STARTED: "Started",
    STOPPED: "Stopped",
    RUNNING: "Running",
    CANCELLING: "Cancelling",
    PENDING: "Pending",
    STARTING: "Starting",
    STOPPING: "Stopping",
    ABORTING: "Aborting",
    FREEZING: "Freezing",
    FROZEN: "Frozen",
    THAWED: "Thawed",
    ERROR: "Error",
    READY: "Ready",
    SUCCESS: "Success",
    FAILURE: "Failure",
    CANCELLED: "Cancelled",
}

# An instance whose processes are there.
UP = frozenset({RUNNING, FROZEN, READY})
# An instance whose processes run.
RUNS = frozenset({RUNNING, READY})
FINAL = frozenset({SUCCESS, FAILURE, CANCELLED})
