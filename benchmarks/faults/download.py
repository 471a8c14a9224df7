"""Downloads that break off or arrive damaged, and the cache of what a language model makes of texts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from .campaign import Campaign, fault, one_line
from .damage import flip, tear
from .report import Row
from .world import differences, final_state


@fault("download", steps=3)
def download(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Break downloads off, deliver other bytes, and leave what a killed process had of one."""
    server, hide = campaign.world.server, campaign.world.folder
    whole = server.content
    broken = Row("half a download", "the connection ends halfway, three times; then the server is well again")
    place = campaign.place()
    server.cut = True
    ended = campaign.world.run(place)
    server.cut = False
    broken.count("fetching")
    campaign.check_end(broken, ended, "cut", 2)
    one_line(broken, ended, "broke off 3 times", "cut", hide)
    campaign.resume(broken, place, "after it was cut", said=False)
    step()
    other = Row("damaged download", "the archive arrives with a bit flipped; then as it should be")
    place = campaign.place()
    server.content = flip(whole, campaign.random("download"))
    ended = campaign.world.run(place)
    server.content = whole
    other.count("fetching")
    campaign.check_end(other, ended, "flipped", 2)
    one_line(other, ended, "wrong checksum", "flipped", hide)
    campaign.resume(other, place, "after it was flipped", said=False)
    step()
    left = Row("leftover download", "half an archive and half the files lie where a killed process had put them")
    place = campaign.place()
    for name, content in (("archive.zip", whole), ("ratings.csv", b"userId,movieId,rating,timestamp\n1,1,5,1\n")):
        folder = place.cache / "datasets" / "faults" / f".incoming-{name[:3]}"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(content[: len(content) // 2])
    left.count("before the run")
    campaign.resume(left, place, "the run")
    left.expect(not list(place.cache.rglob(".incoming-*")), "half a download is still there")
    step()
    return [broken, other, left]


@fault("encodings", steps=2)
def encodings(campaign: Campaign, step: Callable[[], None]) -> list[Row]:
    """Damage what is kept of the texts' encodings."""
    rows = []
    model = tiny_model(campaign.world.folder / "model")
    learner = f'{{ learner = "embed-ridge", config = {{ backbone = "{model}" }} }}'
    suite = campaign.world.write_suite("encodings", ["LEARNER"])
    suite.write_text(suite.read_text().replace('"LEARNER"', learner))
    whole = campaign.place(cached=True)
    ended = campaign.world.run(whole, suite=suite)
    wanted = final_state(whole.out)
    for how, change in (("torn", tear), ("bit-flipped", flip)):
        row = Row(f"{how} encodings", "what a language model made of the texts is damaged in the cache; then a new run")
        campaign.check_end(row, ended, "the undisturbed run")
        rng = campaign.random(row.name)
        place = campaign.world.place()
        shutil.copytree(whole.cache, place.cache)
        files = sorted((place.cache / "learners").glob("text-*.safetensors"))
        if row.expect(files, "nothing is in the cache"):
            for file in files:
                file.write_bytes(change(file.read_bytes(), rng))
                row.count("before the run")
            again = campaign.world.run(place, suite=suite)
            campaign.check_end(row, again, "the run")
            row.note(again.said, [place.folder])
            told = [file.name for file in files if any(file.name in line for line in again.said)]
            row.expect(told, "nothing was said")  # a damaged file that is no longer needed isn't read
            row.compare(differences(wanted, final_state(place.out)), "the run")
        rows.append(row)
        step()
    return rows


def tiny_model(folder: Path) -> Path:
    """Save a BERT with random weights, two layers and a vocabulary of letters, and return its folder."""
    import torch

    from fewrec.data.pretrained import hide_broken_torchvision, quiet_transformers

    hide_broken_torchvision()
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(33, 127))]
    words += [f"##{chr(code)}" for code in range(97, 123)]
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=48, max_position_embeddings=256)  # fmt: skip
    with quiet_transformers():
        BertModel(config).save_pretrained(folder)
        BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    return folder
