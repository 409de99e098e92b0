"""The cases by their names. A case is a function that takes the session and returns a Result; its comment is its title."""

from . import cold, collection, deploy, partial, upgrade

ALL = {**cold.CASES, **upgrade.CASES, **partial.CASES, **deploy.CASES, **collection.CASES}
