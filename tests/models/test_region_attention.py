import torch

from dwarf_cxr.models.region_attention import RegionAttention, Regions


def random_regions(films=3, count=5, features=6, findings=2, seed=0) -> Regions:
    generator = torch.Generator().manual_seed(seed)
    there = torch.arange(count) < torch.tensor([count, 2, 0])[:films, None]
    return Regions(
        torch.randn(films, count, features, generator=generator),
        torch.rand(films, count, 5, generator=generator),
        torch.rand(films, count, findings, generator=generator),
        there,
    )


def test_attention_sums_to_one_over_the_regions_that_are_there():
    torch.manual_seed(0)
    network = RegionAttention(6, 2, 22, 8, 0.0).eval()
    answer = network(random_regions())
    torch.testing.assert_close(answer.attention.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert not answer.attention[1, 2:].any()
    assert answer.embedded.shape == (3, 5, 8)
    assert answer.attributes.shape == (3, 22)


def test_the_answer_is_that_of_the_equations_written_out():
    torch.manual_seed(1)
    network = RegionAttention(6, 2, 4, 8, 0.0).eval()
    regions = random_regions()
    answer = network(regions)
    norm = torch.nn.functional.layer_norm
    places, scores = network.of_geometry, network.of_scores
    for film, count in enumerate((5, 2)):
        rows = []
        for i in range(count):
            geometry = places[0].weight @ regions.geometry[film, i] + places[0].bias
            score = scores[0].weight @ regions.scores[film, i] + scores[0].bias
            both = torch.cat([norm(geometry, (4,)), norm(score, (4,))])
            rows.append(
                network.of_features.weight @ regions.features[film, i]
                + network.of_features.bias
                + network.of_both.weight @ both
                + network.of_both.bias
            )
        phi = torch.stack(rows)
        torch.testing.assert_close(answer.embedded[film, :count], phi)
        u, attend = network.rank.weight[0], network.attend
        ranks = torch.stack([u @ torch.tanh(attend.weight @ one + attend.bias) for one in phi])
        alpha = ranks.softmax(dim=0)
        torch.testing.assert_close(answer.attention[film, :count], alpha)
        pooled = (alpha[:, None] * phi).sum(dim=0)
        torch.testing.assert_close(answer.attributes[film], network.tell(pooled))


def test_padding_changes_nothing():
    torch.manual_seed(2)
    network = RegionAttention(6, 2, 22, 8, 0.0).eval()
    regions = random_regions()
    before = network(regions).attributes
    regions.features[1, 2:] = 99.0
    torch.testing.assert_close(network(regions).attributes, before)
    torch.testing.assert_close(network(regions.rows(torch.tensor([1]))).attributes, before[1:2])
