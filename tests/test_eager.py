"""What stays Python under ``torch.compile``; in a process that has not imported the compiler."""
import json
import subprocess
import sys

SCRIPT = '''
import json, sys
import torch
from mmsparse.eager import eager

def helper(x):
    return x.sin()  # a frame of its own, which the compiler would look at, too

@eager
def outside(x, *, scale=1):
    """Doc."""
    traced.append(torch.compiler.is_compiling())
    return helper(x) * scale

def graph(x):
    return outside(x.exp(), scale=2).cos()

def backend(module, _):
    graphs.append([node.name for node in module.graph.nodes if node.op == 'call_method'])
    return module.forward

traced, graphs, x = [], [], torch.rand(3)
first = outside(x.exp(), scale=2).cos()
before = 'torch._dynamo' in sys.modules
compiled = torch.compile(graph, backend=backend)
results = [compiled(torch.rand(size)).shape[0] for size in (4, 5, 6)]
same = torch.equal(compiled(x), first)
print(json.dumps(dict(before=before, after='torch._dynamo' in sys.modules, same=same, graphs=graphs,
                      traced=traced, results=results, name=outside.__name__, doc=outside.__doc__)))
'''


def test_no_graph_holds_it_and_no_compiler_is_imported_for_it():
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['after'] and not found['before']
    assert found['same'] and found['results'] == [4, 5, 6] and found['traced'] == [False] * 5
    names = [name for graph in found['graphs'] for name in graph]
    assert {'exp', 'cos'} <= set(names) and 'sin' not in names
    assert found['name'] == 'outside' and found['doc'] == 'Doc.'
