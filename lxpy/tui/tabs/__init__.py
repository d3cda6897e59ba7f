"""The tabs of the detail area: one module a tab; `ALL` says which there are, in their order.

A tab is told which object is selected and whether it is seen; it asks the daemon only while it is.
"""

from lxpy.tui.tabs.base import Tab

# The module of each tab and its class; all but the first are imported after the first frame.
ALL: tuple[tuple[str, str], ...] = (
    ("overview", "OverviewTab"),
    ("log", "LogTab"),
    ("config", "ConfigTab"),
    ("devices", "DevicesTab"),
    ("volumes", "VolumesTab"),
    ("network", "ForwardsTab"),
    ("network", "AclsTab"),
    ("snapshots", "SnapshotsTab"),
    ("files", "FilesTab"),
    ("isolation", "ProcessesTab"),
    ("isolation", "IsolationTab"),
)

__all__ = ["ALL", "Tab"]
