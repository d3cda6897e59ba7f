"""The network manager: managed bridges, DHCP and DNS, nics."""
