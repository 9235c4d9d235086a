import copy
import math

import pytest
import torch

from embconform.backends.textbook import BACKEND
from embconform.reference.clause import Profile
from embconform.reference.textbook import Embedding, embedding

WORDS = {"apple": 0, "banana": 1, "cherry": 2, "date": 3}
ROWS = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9], [1.0, 1.1, 1.2]]


def ids(*words: str) -> torch.Tensor:
    return torch.tensor([WORDS[word] for word in words])


def table(rows: object = ROWS, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(rows, dtype=dtype, requires_grad=True)


def literal(indices, weight, padding_idx=None, max_norm=None, norm_type=2.0):
    """The document's code, character for character."""
    output = weight[indices]
    if padding_idx is not None:
        output = output.masked_fill((indices == padding_idx).unsqueeze(-1), 0.0)
    if max_norm is not None:
        norms = output.norm(p=norm_type, dim=-1, keepdim=True)
        output = output * torch.clamp(max_norm / norms, max=1.0)
    return output


def equal(got: torch.Tensor | None, want: object) -> None:
    assert got is not None
    torch.testing.assert_close(
        got, torch.as_tensor(want, dtype=got.dtype), rtol=0, atol=0, equal_nan=True
    )


class TestLookup:
    def test_document_example(self):
        equal(
            embedding(ids("banana", "date"), table()),
            [[0.4, 0.5, 0.6], [1.0, 1.1, 1.2]],
        )

    def test_gradient_counts_the_words(self):
        weight = table()
        embedding(ids("date", "banana", "date"), weight).sum().backward()
        equal(weight.grad, [[0.0] * 3, [1.0] * 3, [0.0] * 3, [2.0] * 3])

    @pytest.mark.parametrize("shape", [(), (0,), (1, 1), (2, 3, 2), (2, 0)])
    @pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
    def test_shape(self, shape, dtype):
        indices = torch.ones(shape, dtype=dtype)
        assert embedding(indices, table(), 0, 1.0).shape == (*shape, 3)

    def test_scalar_index_gives_a_copy(self):
        weight = table()
        with torch.no_grad():
            embedding(torch.tensor(1), weight).zero_()
        equal(weight, ROWS)

    @pytest.mark.parametrize("norm_type", [2.0, math.inf])
    @pytest.mark.parametrize("shape", [(3, 0), (0, 3)])
    def test_empty_table(self, shape, norm_type):
        indices = torch.zeros(shape[0], dtype=torch.long)
        assert embedding(indices, torch.zeros(shape), 0, 1.0, norm_type).shape == shape


class TestRange:
    @pytest.mark.parametrize("bad", [4, -5, 2**32 + 3, 2**62, -(2**63)])
    @pytest.mark.parametrize("width", [0, 3])
    def test_out_of_range(self, bad, width):
        with pytest.raises(IndexError, match=str(bad)):
            embedding(torch.tensor([1, bad]), torch.zeros(4, width))

    @pytest.mark.parametrize("index", [0, -1])
    def test_no_rows(self, index):
        with pytest.raises(IndexError, match=str(index)):
            embedding(torch.tensor(index), torch.zeros(0, 3))

    def test_negative_wraps(self):
        equal(embedding(torch.tensor([-1]), table()), ROWS[3:])

    def test_padding_does_not_hide_a_bad_index(self):
        with pytest.raises(IndexError):
            embedding(torch.tensor([4]), torch.zeros(4, 2), padding_idx=4)


class TestPadding:
    def test_output_is_zero(self):
        weight = table()
        equal(embedding(ids("apple", "date"), weight, padding_idx=0), [[0.0] * 3, ROWS[3]])
        equal(weight, ROWS)

    @pytest.mark.parametrize("max_norm", [None, 0.5])
    @pytest.mark.parametrize("norm_type", [2.0, 1.0, 0.5, math.inf])
    @pytest.mark.parametrize("upstream", [1.0, math.inf, math.nan])
    def test_no_gradient(self, upstream, max_norm, norm_type):
        weight = table()
        out = embedding(ids("apple", "apple"), weight, 0, max_norm, norm_type)
        out.backward(torch.full_like(out, upstream))
        equal(weight.grad, torch.zeros(4, 3))


class TestMaxNorm:
    def test_only_long_rows_are_scaled(self):
        weight = table([[3.0, 4.0], [0.3, -0.4]])
        out = embedding(torch.tensor([0, 1]), weight, max_norm=1.0)
        torch.testing.assert_close(out[0].detach(), torch.tensor([0.6, 0.8], dtype=torch.float64))
        equal(out[1], [0.3, -0.4])
        equal(weight, [[3.0, 4.0], [0.3, -0.4]])

    @pytest.mark.parametrize("norm_type", [2.0, 1.0, 0.5, 3.0, math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_same_bits_and_gradient_as_the_document(self, norm_type, dtype):
        torch.manual_seed(0)
        mine = torch.randn(50, 7).to(dtype).requires_grad_()
        theirs = mine.detach().clone().requires_grad_()
        indices = torch.randint(0, 50, (40, 3))
        upstream = torch.randn(40, 3, 7).to(dtype)
        norms = mine.detach().norm(p=norm_type, dim=-1)
        bound = float(norms.median()) * 1.001  # some rows over, some under
        got = embedding(indices, mine, 2, bound, norm_type)
        want = literal(indices, theirs, None, bound, norm_type).masked_fill(
            (indices == 2).unsqueeze(-1), 0.0
        )
        equal(got, want.detach())
        got.backward(upstream)
        want.backward(upstream)
        clear = bound / norms != 1  # a quotient that rounds to 1 is the kink: either is right
        assert mine.grad is not None
        assert theirs.grad is not None
        equal(mine.grad[clear], theirs.grad[clear])

    def test_gradient_through_the_scale(self):
        weight = table([[3.0, 4.0], [0.3, -0.4]])
        embedding(torch.tensor([0, 1]), weight, max_norm=1.0).sum().backward()
        # d/dw (w / |w|) applied to ones: (1 - w * sum(w) / |w|^2) / |w|
        want = [[(1 - 3 * 7 / 25) / 5, (1 - 4 * 7 / 25) / 5], [1.0, 1.0]]
        torch.testing.assert_close(weight.grad, torch.tensor(want, dtype=torch.float64))

    @pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0])
    def test_twice_differentiable(self, norm_type):
        weight = table([[3.0, 4.0, -1.0], [0.1, -0.2, 0.3]])
        indices = torch.tensor([0, 1, 0])
        assert torch.autograd.gradgradcheck(
            lambda w: embedding(indices, w, max_norm=1.0, norm_type=norm_type), weight
        )

    @pytest.mark.parametrize("norm_type", [1.0, 2.0, 0.5, 3.0, math.inf])
    @pytest.mark.parametrize("tiny", [0.0, 1e-30, 1e-45])
    def test_zero_and_tiny_rows_pass_the_gradient(self, norm_type, tiny):
        weight = table([[tiny, 0.0]], torch.float32)
        out = embedding(torch.tensor([0, 0]), weight, max_norm=1.0, norm_type=norm_type)
        equal(out, [[tiny, 0.0]] * 2)
        out.sum().backward()
        equal(weight.grad, [[2.0, 2.0]])

    def test_document_gives_nan_at_a_zero_row(self):
        """The reason for the detour in the layer; if torch mends it, the detour can go."""
        weight = table([[0.0, 0.0]])
        literal(torch.tensor([0]), weight, max_norm=1.0).sum().backward()
        assert weight.grad is not None
        assert weight.grad.isnan().all()

    def test_nan_spoils_its_row_alone(self):
        weight = table([[math.nan, 1.0], [0.0, 0.5]])
        out = embedding(torch.tensor([0, 1]), weight, max_norm=1.0)
        equal(out, [[math.nan, math.nan], [0.0, 0.5]])

    def test_zero_bound(self):
        equal(embedding(torch.tensor([0]), table([[3.0, 4.0]]), max_norm=0.0), [[0.0, 0.0]])


class TestModule:
    def test_standard_deviation(self):
        torch.manual_seed(0)
        weight = Embedding(1000, 100, padding_idx=1).weight.detach()
        assert float(weight.std()) == pytest.approx(0.1, rel=0.01)
        assert float(weight.abs().max()) > 0.35  # a uniform draw would end at 0.173
        assert weight[1].all()

    def test_options_reach_the_function(self):
        module = Embedding(4, 2, padding_idx=0, max_norm=0.5, norm_type=1.0, dtype=torch.float64)
        indices = torch.tensor([[0, 1], [2, 3]])
        equal(module(indices), embedding(indices, module.weight, 0, 0.5, 1.0))

    def test_learns_by_gradient_descent(self):
        torch.manual_seed(0)
        module = Embedding(4, 3, padding_idx=0)
        before = module.weight.detach().clone()
        sgd = torch.optim.SGD(module.parameters(), lr=0.5)
        module(ids("apple", "banana", "banana")).sum().backward()
        sgd.step()
        equal(module.weight.detach(), before - torch.tensor([[0.0], [1.0], [0.0], [0.0]]))

    def test_state_dict(self):
        module = Embedding(4, 3)
        other = Embedding(4, 3)
        other.load_state_dict(module.state_dict())
        assert list(module.state_dict()) == ["weight"]
        equal(copy.deepcopy(other)(ids("date")), module(ids("date")))

    def test_no_columns(self):
        assert Embedding(4, 0).weight.shape == (4, 0)

    def test_repr(self):
        assert repr(Embedding(4, 3)) == "Embedding(4, 3)"
        shown = "Embedding(4, 3, padding_idx=0, max_norm=1.0, norm_type=1.0)"
        assert repr(Embedding(4, 3, padding_idx=0, max_norm=1.0, norm_type=1.0)) == shown


def test_backend_has_the_document_options_alone():
    assert BACKEND.capabilities.options == {"padding_idx", "max_norm", "norm_type"}
    assert BACKEND.profiles == (Profile.TEXTBOOK,)
    assert not BACKEND.capabilities.deterministic
