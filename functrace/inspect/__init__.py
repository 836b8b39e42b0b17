"""Looking at programs: what they cost, how their modes compare, and their computations drawn."""

from functrace.inspect import modes as modes
from functrace.inspect.cost import Cost as Cost
from functrace.inspect.cost import LineCosts as LineCosts
from functrace.inspect.cost import cost as cost
from functrace.inspect.draw import Drawing as Drawing
from functrace.inspect.draw import draw as draw
from functrace.inspect.kinks import Kinks as Kinks
from functrace.inspect.kinks import kinks as kinks
from functrace.inspect.loading import load_function as load_function
from functrace.inspect.loading import parse_values as parse_values
from functrace.inspect.nans import NanReport as NanReport
from functrace.inspect.nans import check_nans as check_nans
from functrace.inspect.trace_table import MODES as MODES
from functrace.inspect.trace_table import TraceTable as TraceTable
from functrace.inspect.trace_table import trace_table as trace_table
