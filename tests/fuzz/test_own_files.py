"""A user's own files: as text and Parquet, tables of items and users, one user's ratings, train and test."""

from __future__ import annotations

import gzip

import pyarrow as pa

from fewrec.data.own import load_own
from fewrec.data.synthetic import make_synthetic
from fewrec.finetune.pairs import read_pairs
from fewrec.recommender.ratings import read_ratings
from fewrec.recommender.titles import TitleIndex
from tests.fuzz.harness import Target
from tests.fuzz.inputs import folders, inside_parquet, plain_parquet
from tests.fuzz.invariants import holds

CSV = b"user,item,rating,timestamp\n1,10,5,100\n1,11,3,200\n2,10,4,300\n3,12,1,400\n"
TEXTS = {
    "a.csv": CSV,
    "b.tsv": CSV.replace(b",", b"\t"),
    "c.dat": b"1::10::5::978300760\n1::11::3::978300761\n2::10::4::978300762\n",
    "d.csv": b'"user";"movie";"stars";"date"\n"An;na";"\xc3\xa9";4.5;2005-03-31\nBob;"""x""";3;2005-04-01T10:00:00Z\n',
    "e.txt": b"u1 i1 4\nu2 i1 3\nu2 i2 5\n",
    "f.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n2\t10\t5\t881250949\n1\t2\t3\t8812\n",
    "g.csv.gz": gzip.compress(CSV, mtime=0),
    "h.csv": b"user,item,click\n1,10,1\n1,11,0\n2,10,1\n",
}
_OPTIONS = (
    {}, {}, {}, {"duplicates": "last"}, {"duplicates": "mean"}, {"scale": (0, 10)}, {"delimiter": "comma"},
    {"columns": "user,item,rating,timestamp"}, {"columns": "user,item,rating,_"}, {"rating_col": "rating"},
    {"time_col": "item"},
    {"negatives": 1}, {"duplicates": "last", "scale": (-1e300, 1e300)},
)  # fmt: skip


def _options(folder):
    """Return the options that the input's first file asks for, by its size: no second draw is needed."""
    file = min(folder.iterdir())
    size = file.stat().st_size if file.is_file() else 0
    return file, {} if file.is_file() and file.read_bytes() == TEXTS.get(file.name) else _OPTIONS[size % len(_OPTIONS)]


def test_a_file_of_ratings_as_text(fuzz):
    def read(folder):
        file, options = _options(folder)
        holds(load_own(file, **options))

    seeds = [{name: content} for name, content in TEXTS.items()]
    target = Target("own-text", "`fewrec.data.own.load_own`, text", read, names=("--", "every rating is"))
    fuzz(target, seeds, folders(seeds, tokens=[b"user", b"item", b"rating"]))


RATINGS = pa.table({
    "user": pa.array([1, 1, 2, 3], pa.int64()), "item": pa.array(["a", "b", "a", "c"]), "rating": pa.array([5.0,
    3.0, 4.0, 1.0]),
    "timestamp": pa.array([1, 2, 3, 4], pa.int64()),
})  # fmt: skip
CATEGORIES = pa.table({
    "user": RATINGS["user"].cast(pa.string()).dictionary_encode(), "item": RATINGS["item"].dictionary_encode(),
    "rating": RATINGS["rating"].cast(pa.float32()), "date": pa.array([0, 86_400, 2, 3], pa.timestamp("s")),
})  # fmt: skip


def test_a_file_of_ratings_as_parquet(fuzz):
    def read(folder):
        file, _ = _options(folder)
        holds(load_own(file))

    seeds = [{"ratings.parquet": plain_parquet(RATINGS)}, {"r.pq": plain_parquet(CATEGORIES)}]
    target = Target("own-parquet", "`fewrec.data.own.load_own`, Parquet", read, names=("every rating is",))
    fuzz(target, seeds, folders(seeds, inside=inside_parquet))


ITEMS = {
    "items.csv": b"item,title,year,genres,description\n"
    b"10,Toy Story (1995),1995,Animation|Comedy,A toy.\n11,X,,,\n12,\"Y, the\",2001,Drama,\n",
    "items.item": b"item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    b"10\tA\t1995\tDrama War\n12\tB\t1990\tDrama\n",
    "items.parquet": plain_parquet(pa.table({"item": [10, 11], "title": ["A", "B"], "year": [1995, 1996]})),
}  # fmt: skip
USERS = {
    "users.csv": b"user,age,job,zip\n1,20,nurse,123\n2,,teacher,456\n4,30,,\n",
    "users.tsv": b"id\tage\n1\t20\n3\tx\n",
    "users.parquet": plain_parquet(pa.table({"user": [1, 2, 3], "age": [20.0, None, 30.0], "job": ["a", "b", None]})),
}


def _beside(option, tables):
    def read(folder):
        (file,) = folder.iterdir()
        ratings = folder.with_name("ratings.csv")
        ratings.write_bytes(CSV)
        holds(load_own(ratings, **{option: file}))

    seeds = [{name: content} for name, content in tables.items()]
    target = Target(f"own-{option}", f"`fewrec.data.own.load_own`, {option}", read)
    return target, seeds, folders(seeds, inside=inside_parquet, lose=False)


def test_a_table_of_items(fuzz):
    fuzz(*_beside("items", ITEMS))


def test_a_table_of_users(fuzz):
    fuzz(*_beside("users", USERS))


def test_the_ratings_of_one_user(fuzz):
    data = make_synthetic(n_users=30, n_items=20, ratings_per_user=10, seed=3)
    titles = TitleIndex(data)
    names = [titles.shown(i) for i in range(3)]
    seeds = [
        {"mine.csv": f'item,rating\n{data.catalog.item_ids[4]},4\n"{names[0]}",3\n'.encode()},
        {"mine.tsv": f"title\trating\n{names[1]}\t2\n{names[2]}\t5\n".encode()},
        {"mine.csv": f"{data.catalog.item_ids[1]},4\n{data.catalog.item_ids[2]},3\n".encode()},
        {
            "mine.parquet": plain_parquet(
                pa.table({"item_id": data.catalog.item_ids[:3].tolist(), "rating": [1.0, 2.0, 3.0]})
            )
        },
    ]

    def read(folder):
        (file,) = folder.iterdir()
        found = read_ratings(file, titles, data.scale)
        assert len(found) == len(set(found.item.tolist())) >= 1 and 0 <= found.item.min() and found.item.max() < 20
        assert (data.scale.low <= found.rating).all() and (found.rating <= data.scale.high).all()

    target = Target("ratings-of-one-user", "`fewrec.recommender.ratings.read_ratings`", read, lines=True)
    words = [str(item).encode() for item in data.catalog.item_ids[:9]] + [name.encode() for name in names]
    fuzz(target, seeds, folders(seeds, tokens=words, inside=inside_parquet, lose=False))


def test_two_files_to_fine_tune_on(fuzz):
    train = b"10,1,5\n11,1,3\n10,2,4\n12,3,1\n11,2,2\n"
    test = b"12,1,5\n11,3,3\n10,3,2\n"
    seeds = [
        {"train.csv": train, "test.csv": test},
        {
            "train.csv": b"item,user,score\n" + train,
            "test.csv": b"item,user,score\n" + test,
            "titles.csv": ITEMS["items.csv"],
        },
    ]

    def read(folder):
        titles = folder / "titles.csv"
        pairs = read_pairs(folder / "train.csv", folder / "test.csv", items=titles if titles.exists() else None)
        for table in (pairs.train, pairs.test):
            assert len(table) and table.user.max() < len(pairs.user_ids) and table.item.max() < len(pairs.item_ids)
        assert all(isinstance(one, str) for one in (*pairs.user_ids, *pairs.item_ids))

    target = Target("finetune-pairs", "`fewrec.finetune.pairs.read_pairs`", read, names=("every rating is",))
    fuzz(target, seeds, folders(seeds, lose=False))
