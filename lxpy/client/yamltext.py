"""Objects as users write them in YAML: what LXD takes for text is the text that was written."""

from typing import Any

import yaml

_TAG = "tag:yaml.org,2002:"
_TEXTS = ("config", "devices", "properties")  # below these everything is text


class _Loader(yaml.SafeLoader):
    """Times stay the text they are."""

    yaml_implicit_resolvers = {
        first: [one for one in resolvers if one[0] != f"{_TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def load(text: str) -> Any:
    """A document. Values of a configuration stay as they are written: 0755 is no 493, and 1.10 no 1.1.

    Raises:
        yaml.YAMLError: it is none.
    """
    loader = _Loader(text)
    node = loader.get_single_node()
    if node is None:
        return None
    _keep(node, False, set())
    return loader.construct_document(node)


def _keep(node: Any, inside: bool, seen: set[int]) -> None:
    if isinstance(node, yaml.ScalarNode):
        if inside and node.tag != f"{_TAG}null":
            node.tag = f"{_TAG}str"
    elif id(node) not in seen:  # an alias
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for one in node.value:
                _keep(one, inside, seen)
            return
        for key, value in node.value:
            if key.tag != f"{_TAG}merge":
                _keep(key, inside, seen)
            _keep(value, inside or key.value in _TEXTS, seen)
