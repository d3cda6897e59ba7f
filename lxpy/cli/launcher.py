"""The lean launcher the installer writes to ``/usr/local/bin/lxpy``: isolated, no site, no entry-point machinery."""


def script(python: str, site_packages: str) -> str:
    """The text of the launcher.

    Args:
        python: absolute path of the interpreter lxpy is installed for.
        site_packages: absolute path of the directory that holds ``lxpy/``. It becomes a plain path entry, so
            ``.pth`` files in it are not run; the daemon and the app do that themselves where they need to.
    """
    return (
        f"#!{python} -IS\n"
        "import sys\n"
        f"sys.path.append({site_packages!r})\n"
        "from lxpy.cli.main import main\n"
        "sys.exit(main())\n"
    )
