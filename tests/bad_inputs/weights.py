"""Model weights that can't be loaded, and fine-tuning on files that can't be used."""

from tests.bad_inputs.case import Case, cut, ratings

TUNE = "finetune train.csv test.csv --threads 1 "
MINE = TUNE + "--backbone encoder "
CONFIG = '{"model_type": "bert", "hidden_size": 8}'

CASES = (
    Case(
        "weights with a misspelt name",
        TUNE + "--backbone all-MiniLM-L6",
        "--backbone: unknown weights 'all-MiniLM-L6'; did you mean 'all-MiniLM-L6-v2'? (or give owner/name on the hub, or a folder)",
    ),
    Case(
        "a repository of the hub, offline",
        TUNE + "--backbone some/model --offline",
        "some/model is not in the model hub's cache, and offline mode forbids to fetch it; give a folder, or leave out --offline and FEWREC_OFFLINE where there is a network",
    ),
    Case(
        "weights of fewrec's, offline",
        TUNE,
        "all-MiniLM-L6-v2 is not in the cache cache/weights/all-MiniLM-L6-v2, and offline mode forbids to fetch it; where there is a network: fewrec data fetch all-MiniLM-L6-v2, without --offline and FEWREC_OFFLINE",
    ),
    Case(
        "no such folder of weights", TUNE + "--backbone ./encoder", "--backbone: ./encoder: no such folder of weights"
    ),
    Case(
        "a file in place of weights",
        TUNE + "--backbone mine.csv",
        "--backbone: mine.csv: weights are a folder with config.json and *.safetensors, or a *.gguf; this is a file",
    ),
    Case(
        "an empty folder of weights",
        TUNE + "--backbone stuff",
        "stuff: no config.json, so this is not a folder of model weights",
        files={"stuff/": ""},
    ),
    Case(
        "a folder with a configuration alone",
        TUNE + "--backbone stuff",
        "stuff: no *.safetensors file and no *.gguf, all that fewrec loads; convert it first",
        files={"stuff/config.json": CONFIG},
    ),
    Case(
        "weights as a pickle",
        TUNE + "--backbone stuff",
        "stuff: no *.safetensors file and no *.gguf, all that fewrec loads (pytorch_model.bin would run code when loaded); convert it first",
        files={"stuff/config.json": CONFIG, "stuff/pytorch_model.bin": b"\x80\x02}q\0."},
    ),
    Case(
        "a configuration that isn't JSON",
        MINE,
        "encoder: config.json can't be read (the mistake is in line 1, column 2); get the model again",
        needs="encoder",
        files={"encoder/config.json": "{"},
    ),
    Case(
        "a configuration that is a list",
        MINE,
        "encoder: config.json is not the configuration of a model; get the model again",
        needs="encoder",
        files={"encoder/config.json": "[]"},
    ),
    Case(
        "a model that is no encoder",
        MINE,
        "--backbone encoder: a 'gpt2' model; give an encoder of bert, roberta, xlm-roberta, camembert",
        needs="encoder",
        files={"encoder/config.json": '{"model_type": "gpt2"}'},
    ),
    Case(
        "a configuration that asks for code",
        MINE,
        "--backbone encoder: a 'mine' model; give an encoder of bert, roberta, xlm-roberta, camembert",
        needs="encoder",
        files={"encoder/config.json": '{"model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}'},
    ),
    Case(
        "weights that were cut off",
        MINE,
        "--backbone encoder: model.safetensors is damaged or cut off; get it again",
        needs="encoder",
        files={"encoder/model.safetensors": cut},
    ),
    Case(
        "a GGUF file that is none",
        TUNE + "--backbone bad.gguf",
        "bad.gguf: not a GGUF file, whatever its name says",
        files={"bad.gguf": "not one\n"},
    ),
    Case(
        "a GGUF file that is damaged",
        TUNE + "--backbone bad.gguf",
        "bad.gguf: transformers can't read this GGUF file; it is damaged, cut off, or of an unknown model",
        files={"bad.gguf": "GGUF and no more\n"},
    ),
    Case(
        "two GGUF files",
        TUNE + "--backbone stuff",
        "stuff: 2 GGUF files (a.gguf, b.gguf); give the path of the one to use",
        files={"stuff/a.gguf": "x", "stuff/b.gguf": "y"},
    ),
    Case(
        "texts longer than the model reads",
        MINE + "--max-length 4096",
        "--max-length 4096: encoder reads at most 64 tokens",
        needs="encoder",
    ),
    Case("texts of no length", MINE + "--max-length 2", "--max-length: 2 is too small; give 8 or more"),
    Case("a learning rate of 0", MINE + "--learning-rate 0", "--learning-rate: 0 is not above 0"),
    Case("a learning rate that is NaN", MINE + "--learning-rate nan", "--learning-rate: nan is not a finite number"),
    Case("weight decay below 0", MINE + "--weight-decay -1", "--weight-decay: -1 is below 0"),
    Case("dropout of everything", MINE + "--dropout 1", "--dropout: 1 is not below 1"),
    Case("a seed of fine-tuning below 0", MINE + "--seed -1", "--seed: -1 is too small; give 0 or more"),
    Case("no such file to train on", "finetune nowhere.csv test.csv", "nowhere.csv: no such file"),
    Case("no such file to test on", "finetune train.csv nowhere.csv", "nowhere.csv: no such file"),
    Case(
        "a train rating that is a word",
        "finetune bad.csv test.csv",
        "bad.csv:4: rating 'good' is not a number",
        files={"bad.csv": ratings("1,3,good")},
    ),
    Case(
        "a test rating outside the scale",
        "finetune train.csv bad.csv --scale 1 5",
        "bad.csv:4: rating 7 is outside the scale 1..5 (give --scale 1 10 if it is right)",
        files={"bad.csv": ratings("1,3,7")},
    ),
    Case(
        "a test file without rows",
        "finetune train.csv bad.csv",
        "bad.csv:2: the file ends before its first rating",
        files={"bad.csv": "user,item,rating\n"},
    ),
    Case(
        "a pair twice in train",
        "finetune bad.csv test.csv --duplicates error",
        "bad.csv:4: user 1 and item 1 come twice, first at bad.csv:2 (give --duplicates last or mean)",
        files={"bad.csv": ratings("1,1,4")},
    ),
    Case(
        "train with other columns",
        "finetune bad.csv test.csv",
        "bad.csv:1: no column for the user among 'a', 'b', 'c' (give --user-col)",
        files={"bad.csv": "a,b,c\nd,e,f\n"},
    ),
    Case(
        "a user column that train hasn't",
        TUNE + "--user-col usr",
        "train.csv:1: no column 'usr' (--user-col); did you mean 'user'?",
    ),
    Case(
        "columns that the files haven't",
        TUNE + "--columns user,item,rating,time",
        "train.csv:1: 3 columns, but --columns names 4",
    ),
    Case(
        "texts from two places",
        TUNE + "--items items.csv --dataset ml-100k",
        "--items and --dataset exclude one another: item texts come from one of them",
    ),
    Case(
        "texts of a data set that isn't there",
        TUNE + "--dataset ml-100",
        "unknown dataset 'ml-100'; did you mean 'ml-100k'?",
    ),
    Case(
        "texts of other items",
        TUNE + "--items bad.csv",
        "bad.csv: not one of the rated items is in it (ids such as 0, there tt1)",
        files={"bad.csv": "item,title\ntt1,Up\n"},
    ),
    Case(
        "a template for fine-tuning without items",
        TUNE + "--template '{title}'",
        "--template: there are no item texts to make of it (give --items)",
    ),
    Case(
        "fine-tuning on a device that isn't there", TUNE + "--device tpu", "--device tpu: choose auto, cpu, cuda or mps"
    ),
    Case(
        "fine-tuning on no thread",
        "finetune train.csv test.csv --threads 0",
        "--threads 0: at least one thread is needed",
    ),
    Case(
        "fine-tuning into a folder of something else",
        MINE + "--out stuff",
        "--out stuff: the folder is not empty, and not of this command; choose another",
        needs="encoder",
        files={"stuff/notes.txt": "mine\n"},
    ),
    Case(
        "fine-tuning below a file",
        MINE + "--out mine.csv/x",
        "--out mine.csv/x: can't write there (a file stands where a folder should be); choose another folder",
        needs="encoder",
    ),
)
