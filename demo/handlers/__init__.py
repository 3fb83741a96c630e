"""Event handlers of the page, one module a tab: component values in, values and component updates out."""

from __future__ import annotations

from ..service import Service
from .export import ExportHandlers
from .inputs import InputHandlers
from .results import ResultHandlers
from .run import RunHandlers
from .try_it import TryItHandlers


class Handlers:
    """All event handlers over one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.inputs = InputHandlers(service)
        self.run = RunHandlers(service, self.inputs)
        self.results = ResultHandlers(service)
        self.export = ExportHandlers(service, self.results)
        self.try_it = TryItHandlers(service)
