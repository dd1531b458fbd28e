from .detector import detect as detect
from .finding import Finding as Finding
from .result import Emergence as Emergence
