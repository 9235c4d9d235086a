import pickle
import sys
import textwrap
from importlib.metadata import EntryPoint, EntryPoints

import pytest

torch = pytest.importorskip("torch")

from embconform.backends import catalogue as catalogue_module  # noqa: E402
from embconform.backends.backend import OPTIONS, Backend, TargetError  # noqa: E402
from embconform.backends.catalogue import catalogue, reason_not_to_run  # noqa: E402
from embconform.backends.targets import resolve  # noqa: E402
from embconform.reference.clause import Profile  # noqa: E402

torch.set_num_threads(1)

GOOD = """
import torch
from torch.nn.functional import embedding as plain

def full(input, weight, padding_idx=None, max_norm=None, norm_type=2.0,
         scale_grad_by_freq=False, sparse=False):
    return plain(input, weight)

def few(input, weight, padding_idx=None):
    return plain(input, weight)

def bare(ids, table):
    return plain(ids, table)

def anything(input, weight, **options):
    return plain(input, weight, **options)

def starred(*args, **kwargs):
    return plain(*args, **kwargs)

class Holder:
    inner = staticmethod(bare)

class Object:
    def __call__(self, input, weight, *, sparse=False):
        return plain(input, weight, sparse=sparse)

an_object = Object()

class Module(torch.nn.Module):
    def __init__(self, num_embeddings, embedding_dim, padding_idx=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
    def forward(self, input):
        return plain(input, self.weight)
"""

BAD = """
import torch, types
one = lambda input: input
none = lambda: None
extra = lambda input, weight, scale: input
def keyword_only(input, weight, *, padding_idx): pass
def swapped(weight, input): pass
number = 3
table = torch.zeros(3)
layer = torch.nn.Embedding(3, 4)
module = types
class Plain: pass
class Function(torch.autograd.Function): pass
class NoForward(torch.nn.Module):
    def __init__(self, num_embeddings, embedding_dim): pass
class OneSize(torch.nn.Module):
    def __init__(self, size): pass
    def forward(self, input): pass
class Needy(torch.nn.Module):
    def __init__(self, num_embeddings, embedding_dim, device): pass
    def forward(self, input): pass
class Greedy(torch.nn.Module):
    def __init__(self, num_embeddings, embedding_dim): pass
    def forward(self, input, offsets): pass
from embconform.backends.backend import Backend, Capabilities
no_profile = Backend("x", functional=swapped, profiles=())
odd_profile = Backend("x", functional=swapped, profiles=("jax",))
odd_field = Backend("x", functional="torch")
odd_option = Backend("x", functional=swapped,
                     capabilities=Capabilities(options=frozenset({"padding"})))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "good.py").write_text(GOOD)
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


def _refused(target: str) -> str:
    with pytest.raises(TargetError) as caught:
        resolve(target)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def _write(folder, name, code):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))


@pytest.mark.parametrize("name", ["eager", "textbook"])
def test_built_in_names(name):
    assert resolve(name).name == name


@pytest.mark.parametrize(
    ("attr", "options"),
    [
        ("full", set(OPTIONS)),
        ("few", {"padding_idx"}),
        ("bare", set()),
        ("anything", set(OPTIONS)),
        ("starred", set(OPTIONS)),
        ("Holder.inner", set()),
        ("an_object", {"sparse"}),
    ],
)
def test_options_come_from_the_signature(folder, attr, options):
    backend = resolve(f"good.py:{attr}")
    assert backend.capabilities.options == options
    assert backend.profiles == (Profile.TORCH, Profile.TEXTBOOK)
    assert backend.module is None
    assert backend.functional(torch.tensor([1]), torch.eye(2)).tolist() == [[0, 1]]


def test_a_module_class(folder):
    backend = resolve("good.py:Module")
    assert backend.capabilities.options == {"padding_idx"}
    assert backend.functional is None
    module = backend.module(4, 3, dtype=torch.float64, padding_idx=1)
    assert module.weight.dtype == torch.float64


def test_torch_itself():
    backend = resolve("torch.nn:Embedding")
    assert backend.module is torch.nn.Embedding
    assert backend.capabilities.options == set(OPTIONS)
    assert resolve("torch.nn.functional:embedding").capabilities.options == set(OPTIONS)
    assert resolve("torch:nn.functional.embedding").functional is torch.nn.functional.embedding


def test_a_module_in_the_current_folder(folder):
    _write(folder, "pkg_here/__init__.py", "")
    _write(folder, "pkg_here/inner.py", "def embed(input, weight): return weight[input]")
    assert resolve("pkg_here.inner:embed").capabilities.options == frozenset()


def test_a_file_is_a_module_of_its_own(folder):
    backend = resolve("./good.py:Module")
    cls = resolve(f"{folder}/good.py:Module")
    assert "good" not in sys.modules
    module = backend.module(2, 3)
    assert type(module) is type(cls.module(2, 3))
    assert isinstance(pickle.loads(pickle.dumps(module)), type(module))
    assert not (folder / "__pycache__").exists()


def test_a_file_that_changed_is_read_again(folder):
    _write(folder, "f.py", "def embed(input, weight, sparse=False): return 1")
    assert resolve("f.py:embed").functional(0, 0) == 1
    _write(folder, "f.py", "def embed(input, weight, sparse=False): return 2")
    assert resolve("f.py:embed").functional(0, 0) == 2


def test_a_file_may_import_its_neighbours_also_late(folder):
    _write(folder, "sub/helper_a.py", "NAME = 'a'")
    _write(folder, "sub/helper_b.py", "NAME = 'b'")
    code = """
        from helper_a import NAME
        def embed(input, weight):
            import helper_b
            return NAME + helper_b.NAME
    """
    _write(folder, "sub/target.py", code)
    assert resolve("sub/target.py:embed").functional(None, None) == "ab"
    assert sys.path[-1] == str(folder / "sub")


def test_a_file_may_define_dataclasses(folder):
    code = """
        from __future__ import annotations
        from dataclasses import dataclass
        @dataclass
        class C:
            x: int
            def __call__(self, input, weight): return self.x
        embed = C(3)
    """
    _write(folder, "f.py", code)
    assert resolve("f.py:embed").functional(None, None) == 3


def test_a_backend_object(folder):
    code = """
        from embconform.backends.backend import Backend
        from embconform.reference.clause import Profile
        mine = Backend("mine", functional=lambda i, w: w[i], profiles=("textbook",))
    """
    _write(folder, "f.py", code)
    backend = resolve("f.py:mine")
    assert backend.name == "mine"
    assert backend.profiles == (Profile.TEXTBOOK,)
    assert isinstance(backend.profiles[0], Profile)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("", "the target is empty; give a name"),
        ("egaer", "no backend is called 'egaer', did you mean 'eager'?"),
        ("zzz", "no backend is called 'zzz'; a target is a name (see: embconform backends)"),
        ("torch.nn.Embedding", "for a module's attribute write torch.nn:Embedding"),
        ("good.py", "say what in the file is to be judged, as in good.py:full, few"),
        ("absent.py", "no file absent.py"),
        (":x", "':x' is not a target"),
        ("x:", "'x:' is not a target"),
        ("god.py:full", "no file god.py, did you mean 'good.py'?"),
        ("nowhere/good.py:full", "no folder nowhere"),
        ("./:full", "is a folder; name a .py file in it"),
        ("good.py:ful", "good.py has no 'ful', did you mean 'full'?"),
        ("good.py:Holder.iner", "good.py:Holder has no 'iner', did you mean 'inner'?"),
        ("no_such_pkg:f", "no module named 'no_such_pkg', neither in the current folder nor"),
        ("torch.nn.functionl:embedding", "torch.nn has no module 'functionl', did you mean"),
        ("torch.nn:Embeding", "torch.nn has no 'Embeding', did you mean 'Embedding'?"),
        ("a-b:f", "'a-b' is no module's name"),
        ("sub.later:f", "for the file write sub/later.py:attr"),
    ],
)
def test_what_cannot_be_found(folder, target, said):
    _write(folder, "sub/later.py", "raise NotImplementedError")
    if target == "sub.later:f":
        (folder / "sub.py").write_text("")
    assert said in _refused(target)


@pytest.mark.parametrize(
    ("attr", "said"),
    [
        ("one", "can't be called as f(input, weight, **options): its signature is (input)"),
        ("none", "its signature is ()"),
        ("extra", "'scale' has no default, and only input and weight are sure to be given"),
        ("keyword_only", "'padding_idx' has no default"),
        ("swapped", "takes (weight, input); an embedding is called as f(input, weight, **opt"),
        ("number", "is of type int, which can't be called; name a function f(input, weight"),
        ("table", "is of type Tensor, which can't be called"),
        ("layer", "name the class, as in bad.py:Embedding"),
        ("module", "is a module; name a function or a class in it"),
        ("Plain", "is a class that is not a torch.nn.Module"),
        ("Function", "name its apply: bad.py:Function.apply"),
        ("NoForward", "has no forward(self, input)"),
        ("OneSize", "can't be made as OneSize(num_embeddings, embedding_dim): its signature is"),
        ("Needy", "'device' has no default, and only num_embeddings and embedding_dim"),
        ("Greedy", "forward can't be called as forward(input): 'offsets' has no default"),
        ("Backend", "is the Backend class; name an object made with it"),
        ("no_profile", "profiles must be some of torch, textbook"),
        ("odd_profile", "profiles must be some of torch, textbook"),
        ("odd_field", "the backend's functional is no function but of type str"),
        ("odd_option", "capabilities name the option 'padding'"),
    ],
)
def test_what_cannot_be_called(folder, attr, said):
    assert said in _refused(f"bad.py:{attr}")


def test_a_builtin_that_refuses_the_call():
    assert "can't be called as f(input, weight, **options)" in _refused("builtins:len")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\nraise ValueError('two\\nlines')", "ValueError: two lines (f.py:2)"),
        ("def f(:", "SyntaxError: invalid syntax (f.py:1)"),
        ("import sys\nsys.exit(3)", "SystemExit: the code calls exit(3) (f.py:2)"),
        ("import no_such_thing", "no module named 'no_such_thing' (f.py:1)"),
        ("from . import x", "for a file of a package write package.module:attr"),
        ("import json\njson.loads('{')", "(f.py:2)"),
        ("raise KeyboardInterruptX", "NameError"),
        ("raise ValueError('x' * 10_000)", "..."),
        ("class E(Exception):\n  def __str__(self): raise E\nraise E", "E (f.py:3)"),
        ("raise ValueError('\\x1b[31mred')", "ValueError: ?[31mred"),
        ("\0", "importing f.py failed"),
        ("raise GeneratorExit", "GeneratorExit (f.py:1)"),
    ],
)
def test_an_import_that_raises(folder, code, said):
    _write(folder, "f.py", code)
    before = {*sys.modules, "json", "no_such_thing"}
    message = _refused("f.py:embed")
    assert message.startswith("f.py:embed: importing f.py failed: ")
    assert said in message
    assert sys.modules.keys() <= before


def test_a_module_import_that_raises(folder):
    _write(folder, "raises_here.py", "import torch\nraise RuntimeError('no license')")
    said = "importing raises_here failed: RuntimeError: no license (raises_here.py:2)"
    assert said in _refused("raises_here:f")
    _write(folder, "misses_here.py", "import no_such_thing")
    assert "no module named 'no_such_thing' (misses_here.py:1)" in _refused("misses_here:f")


def test_ctrl_c_during_import_is_not_swallowed(folder):
    _write(folder, "f.py", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        resolve("f.py:embed")


def _entry_points(monkeypatch, **values):
    points = EntryPoints(
        EntryPoint(name, value, "embconform.backends") for name, value in values.items()
    )
    monkeypatch.setattr(catalogue_module, "entry_points", lambda group: points.select(group=group))


def test_entry_points(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "good", raising=False)
    _entry_points(monkeypatch, mine="good:few", eager="good:few", lost="no_such_pkg:x")
    assert resolve("mine").capabilities.options == {"padding_idx"}
    assert resolve("mine").name == "mine"
    assert isinstance(resolve("eager"), Backend)
    assert resolve("eager").name == "eager"
    assert resolve("eager").capabilities.options == set(OPTIONS)
    assert _refused("lost") == "lost can't run here: no module named 'no_such_pkg'"
    assert "did you mean 'mine'?" in _refused("mime")


def test_a_backend_that_says_why_it_cannot_run(folder, monkeypatch):
    _write(folder, "needs_gpu.py", "def unavailable(): return 'no GPU\\nhere'\nBACKEND = len")
    monkeypatch.syspath_prepend(str(folder))
    _entry_points(monkeypatch, gpu="needs_gpu")
    assert catalogue()["gpu"].path == "needs_gpu:BACKEND"
    assert _refused("gpu") == "gpu can't run here: no GPU here"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("embconform.backends.eager:BACKEND", None),
        ("embconform.backends.eager:NOTHING", "embconform.backends.eager has no 'NOTHING'"),
        ("no_such_pkg:x", "no module named 'no_such_pkg'"),
        ("", "ValueError: Empty module name"),
    ],
)
def test_reasons_not_to_run(path, reason):
    assert reason_not_to_run(path) == reason
