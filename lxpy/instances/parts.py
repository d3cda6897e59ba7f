"""What the rooms of the instance manager share."""

from collections.abc import Callable
from dataclasses import dataclass

from lxpy.api.layout import Layout
from lxpy.api.objects import Devices
from lxpy.images.manager import ImageManager
from lxpy.instances.create import Creation
from lxpy.instances.lifecycle import Emit, Lifecycle
from lxpy.instances.projectrules import ProjectRules
from lxpy.instances.records import Records
from lxpy.instances.snapshots import Snapshots
from lxpy.instances.templating import Templates
from lxpy.profiles.manager import ProfileManager
from lxpy.state.store import InstanceRow, Store
from lxpy.storage.manager import StorageManager


@dataclass(frozen=True)
class Parts:
    """Attributes:
    save: writes ``backup.yaml`` of an instance, in the background.
    check_references: takes expanded devices and the project; raises `NotFound` for what they name and is not there.
    """

    store: Store
    layout: Layout
    records: Records
    life: Lifecycle
    images: ImageManager
    storage: StorageManager
    profiles: ProfileManager
    templates: Templates
    creation: Creation
    rules: ProjectRules
    snapshots: Snapshots
    check_references: Callable[[Devices, str], None]
    emit: Emit
    warn: Callable[[str], None]
    save: Callable[[InstanceRow], None]
