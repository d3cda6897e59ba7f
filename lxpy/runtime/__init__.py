"""What a container is: spec, namespaces, mounts, cgroup, seccomp, supervisor, attach."""
