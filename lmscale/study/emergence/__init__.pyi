from .detector import detect as detect
from .result import Emergence as Emergence
from .result import Finding as Finding
