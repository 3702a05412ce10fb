"""What the processes of a server say to each other. Declarations only, one file a conversation; nothing is pickled.

Every frame holds a list of messages: what waits together travels together. Times are seconds of the machine-wide
monotonic clock. Pixels and tensors never travel; a `SlotRef` says where they lie.
"""

# ruff: noqa: F403 (the public names of these files are those of this package)

from parallel_infer.ipc.messages.jobs import *
from parallel_infer.ipc.messages.leases import *
from parallel_infer.ipc.messages.management import *
from parallel_infer.ipc.messages.models import *
from parallel_infer.ipc.messages.processes import *
from parallel_infer.ipc.messages.receivers import *
from parallel_infer.ipc.messages.status import *
