"""From a sound to the curves of a mouth: tables of phones, shapes, their blending, and lips that meet."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from assets.derive.speech import SECONDS, SPEECH
from backend.errors import EffigyError
from backend.footage.detector import SCORE_NAMES
from backend.progress import SILENT, Progress
from backend.speech.articulation import JAW_OPEN, LEAST, MOST, RAMP, articulate, blended, contacts
from backend.speech.phone_tables import read_phone_table
from backend.speech.phones import Phone, Phones
from backend.speech.recogniser import LONGEST, SHORTEST, parts, recognise, words_of
from backend.speech.sound import RATE, Sound, read_sound
from backend.speech.spelling import phones_of_spelling
from backend.speech.visemes import REST, VISEMES, Segment, segments_of, visemes_of, weights_of
from building.demo_stage import flac_seconds

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "a ""big"" bee"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "B"
        intervals [3]:
            xmin = 0.5
            xmax = 1
            text = "IY1"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
2
"TextTier"
"marks"
0
1
1
0.5
"here"
"IntervalTier"
"MAU"
0
1
2
0
0.5
"tʃ"
0.5
1
"aɪ"
"""
RHUBARB = {"metadata": {"duration": 1}, "mouthCues": [{"start": 0, "end": 0.4, "value": "A"}]}


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    """(N,) int16: a sound as loud all the time as `level`, of full scale."""
    times = np.arange(round(seconds * RATE)) / RATE
    return (32767 * level * np.sin(2 * np.pi * 220 * times)).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def speech(*phones: tuple[float, float, str]) -> Phones:
    return Phones("ARPAbet", tuple(Phone(*phone) for phone in phones))


def table(tmp_path: Path, name: str, text: str) -> Phones:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return read_phone_table(path)


def channel(channels: np.ndarray, name: str) -> np.ndarray:
    return channels[:, SCORE_NAMES.index(name)]


def test_a_text_grid_is_read_in_both_forms_and_in_both_alphabets(tmp_path: Path) -> None:
    arpabet = table(tmp_path, "a.TextGrid", LONG)
    assert arpabet == Phones("ARPAbet", (Phone(0, 0.25, ""), Phone(0.25, 0.5, "B"), Phone(0.5, 1, "IY1")))
    assert [each.viseme for each in segments_of(arpabet)] == [REST, "PP", "ih"]
    ipa = table(tmp_path, "b.TextGrid", SHORT)
    assert ipa == Phones("IPA", (Phone(0, 0.5, "tʃ"), Phone(0.5, 1, "aɪ")))
    assert [(each.start, each.end, each.viseme) for each in segments_of(ipa)] == [
        (0, 0.5, "CH"),
        (0.5, pytest.approx(0.8), "aa"),
        (pytest.approx(0.8), 1, "ih"),
    ]
    path = tmp_path / "c.TextGrid"
    path.write_text(LONG, "utf-16")
    assert read_phone_table(path) == arpabet


def test_rhubarbs_tables_are_read_as_rows_and_as_json(tmp_path: Path) -> None:
    rows = table(tmp_path, "a.tsv", "0.00\tX\n0.25\tA\n0.50\tD\n1.00\tX\n")
    assert [(each.start, each.end, each.viseme) for each in segments_of(rows)][:3] == [
        (0, 0.25, REST),
        (0.25, 0.5, "PP"),
        (0.5, 1, "aa"),
    ]
    assert table(tmp_path, "a.json", json.dumps(RHUBARB)).phones == (Phone(0, 0.4, "A"),)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.TextGrid",
            LONG.replace('"B"', '"bee, a word"').replace('"IY1"', '"another"'),
            "its tiers are “words”, “ph",
        ),
        ("a.TextGrid", LONG.replace("size = 3", "size = 4"), "a number is missing"),
        ("a.TextGrid", LONG.replace("size = 3", "size = 1e9"), r"it claims 1e\+09 tiers or intervals"),
        ("a.TextGrid", LONG.replace("xmax = 0.5", "xmax = 0.1"), "“B” lasts from 0.25 to 0.1 seconds"),
        ("a.TextGrid", LONG.replace("xmin = 0.5", "xmin = 0.2"), "begins before another one has ended"),
        ("a.TextGrid", LONG[: LONG.index("0.5")], "a number is missing"),
        ("a.TextGrid", LONG.replace('text = "B"', "text = 3"), "a text is missing"),
        ("a.TextGrid", LONG.replace('class = "TextGrid"', 'class = "PitchTier"'), "without phones"),
        ("a.tsv", "0.00\tX\n0.25\tQ\n", "neither of the forms"),
        ("a.tsv", "", "empty"),
        ("a.json", json.dumps({"frames": []}), "has no mouthCues"),
        ("a.json", json.dumps(RHUBARB).replace('"A"', '"M"'), "“M” is none of Rhubarb's"),
        ("a.json", json.dumps(RHUBARB).replace("0.4", '"soon"'), "no start, end and value"),
        ("a.json", json.dumps(RHUBARB).replace("0.4", "1e9"), r"lasts from 0 to 1e\+09 seconds"),
        ("a.json", json.dumps(RHUBARB).replace("0.4", "NaN"), "lasts from 0 to nan seconds"),
    ],
)
def test_a_table_that_holds_no_phones_is_refused_by_a_sentence(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(EffigyError, match=message) as refusal:
        table(tmp_path, name, text)
    assert str(refusal.value).endswith(".")


def test_phones_that_are_not_known_are_told_and_the_mouth_rests(tmp_path: Path) -> None:
    told = []

    class Told(Progress):
        def message(self, text: str) -> None:
            told.append(text)

    path = tmp_path / "a.TextGrid"
    rows = "".join(f'{at}\n{at + 1}\n"{label}"\n' for at, label in enumerate(("M", "AA", "T", "IY", "??")))
    path.write_text(f'"ooTextFile"\n"TextGrid"\n0 5 <exists> 1 "IntervalTier" "phones" 0 5 5\n{rows}')
    assert segments_of(read_phone_table(path, Told()))[-1].viseme == REST
    assert told == ["a.TextGrid has phones that are not known (“??”): the mouth rests there."]


def test_every_phone_of_the_dictionary_and_every_shape_of_the_table_is_known() -> None:
    phones = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH SIL"
    for phone in phones.split():
        shapes = visemes_of(f"{phone}1" if phone[0] in "AEIOU" else phone, "ARPAbet")
        assert shapes is not None and set(shapes) <= set(VISEMES) and bool(shapes) == (phone != "HH"), phone
    assert visemes_of("x", "IPA") == ("kk",) and visemes_of("X", "Rhubarb") == (REST,)
    assert visemes_of("pʰ", "IPA") == ("PP",) and visemes_of("ˈyː", "IPA") == ("ou",) and visemes_of("h", "IPA") == ()
    assert len(VISEMES) == 15
    for shape in VISEMES:
        named = VISEMES[shape].channels
        assert np.count_nonzero(weights_of(shape)) >= len(named), "a channel's name is wrong"


def test_a_shape_alone_is_itself_and_two_blend_by_their_dominance() -> None:
    times = np.arange(0, 1.001, 0.05)
    assert np.allclose(blended([Segment(0, 1, "aa")], times), weights_of("aa"))
    both = blended([Segment(0, 0.5, "aa"), Segment(0.5, 1, "ou")], times)
    funnel, jaw = channel(both, "mouthFunnel"), both[:, JAW_OPEN]
    assert np.all(np.diff(funnel[4:16]) > 0) and np.all(np.diff(jaw[4:16]) < 0)
    # Halfway both are 0.1 s from where their dominance is whole: exp(-0.1 / 0.05) and exp(-0.1 / 0.1) by hand.
    fall_aa, fall_ou = np.exp(-2.0), np.exp(-1.0)
    aa, ou = VISEMES["aa"], VISEMES["ou"]
    alpha_aa, alpha_ou = aa.lips * fall_aa, ou.lips * fall_ou
    assert funnel[10] == pytest.approx(ou.channels["mouthFunnel"] * alpha_ou / (alpha_aa + alpha_ou))
    alpha_aa, alpha_ou = aa.jaw * fall_aa, ou.jaw * fall_ou
    assert jaw[10] == pytest.approx(
        (aa.channels["jawOpen"] * alpha_aa + ou.channels["jawOpen"] * alpha_ou) / (alpha_aa + alpha_ou)
    )


def test_lips_touch_for_most_of_a_stop_and_open_within_the_ramp() -> None:
    times = np.arange(101) / 100
    closed = contacts([Segment(0.4, 0.6, "PP")], times, "PP")
    assert np.all(closed[40:54] == 1) and closed[40 - 7] == 0 and closed[53 + 7] == 0
    assert closed[37] == pytest.approx(0.5 + 0.5 * np.cos(np.pi * 0.03 / RAMP))


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_even_the_shortest_m_closes_the_lips_in_a_frame_between_open_vowels_at_any_intensity(rate: int) -> None:
    for shift in np.arange(0, 1 / rate, 0.005):
        phones = speech((0, 0.5 + shift, "AA"), (0.5 + shift, 0.53 + shift, "M"), (0.53 + shift, 1, "AA"))
        made = articulate(phones, Sound(tone(1)), rate, intensity=1.5, smoothing=0.05)
        frame = int(made.closed.argmax())
        assert made.closed[frame] == 1 and abs(frame / rate - 0.515 - shift) < 1.5 / rate
        assert made.channels[frame, JAW_OPEN] == 0
        assert channel(made.channels, "mouthPressLeft")[frame] == pytest.approx(0.3)
        assert made.channels[round(0.25 * rate), JAW_OPEN] > 0.6


def test_teeth_meet_the_lip_for_f_and_lips_round_before_a_rounded_vowel_begins() -> None:
    made = articulate(speech((0.2, 0.4, "F"), (0.4, 0.7, "IY"), (0.7, 1, "UW")), Sound(tone(1)), 50)
    assert channel(made.channels, "mouthRollLower")[12] == pytest.approx(VISEMES["FF"].channels["mouthRollLower"])
    pucker, stretch = channel(made.channels, "mouthPucker"), channel(made.channels, "mouthStretchLeft")
    assert pucker[34] > 0.15 and pucker[42] > 0.6 and stretch[27] > 0.25 > stretch[42]
    assert made.closed.max() == 0, "lips do not touch each other for f"


def test_silence_is_the_resting_face() -> None:
    made = articulate(speech((0.2, 0.3, "AA")), Sound(tone(2)), 30)
    assert made.channels[45:].max() < 1e-3 and made.channels.shape == (61, 52)
    assert articulate(Phones("ARPAbet", ()), Sound(tone(1)), 30).channels.max() == 0


def test_loud_vowels_open_the_jaw_wider_within_bounds() -> None:
    samples = np.concatenate((tone(1, 0.05), tone(1, 0.15), tone(1, 0.9)))
    jaw = articulate(speech((0, 3, "AA")), Sound(samples), 20).channels[:, JAW_OPEN]
    usual = VISEMES["aa"].channels["jawOpen"]
    assert LEAST * usual < jaw[10] < 0.9 * jaw[30] and jaw[30] == pytest.approx(usual, rel=0.02)
    assert jaw[50] == pytest.approx(MOST * usual, rel=0.02)


def test_intensity_scales_and_smoothing_calms_what_is_no_contact() -> None:
    phones, sound = speech((0.3, 0.6, "AA"), (0.6, 0.9, "IY")), Sound(tone(1.2))
    whole, half, calm = (
        articulate(phones, sound, 50, **settings).channels for settings in ({}, {"intensity": 0.5}, {"smoothing": 0.08})
    )
    assert np.allclose(half, whole / 2)
    assert np.abs(np.diff(calm, axis=0)).max() < 0.7 * np.abs(np.diff(whole, axis=0)).max()


def test_a_sound_is_read_from_a_film_and_what_holds_none_is_refused_by_a_sentence(tmp_path: Path) -> None:
    sound = read_sound(write_wav(tmp_path / "a.wav", tone(0.5)))
    assert sound.seconds == pytest.approx(0.5, abs=0.01)
    assert np.median(sound.levels()[1]) == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.1)
    for name, samples, message in (
        ("b.wav", tone(0.5, 0.001), "b.wav is silent"),
        ("c.wav", tone(0), "holds no sound"),
    ):
        with pytest.raises(EffigyError, match=message):
            read_sound(write_wav(tmp_path / name, samples))
    (tmp_path / "d.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:30])
    (tmp_path / "e.wav").write_text("no sound")
    for name, message in (("d.wav", "d.wav"), ("e.wav", "is not a sound"), ("none.wav", "There is no sound")):
        with pytest.raises(EffigyError, match=message):
            read_sound(tmp_path / name)


def test_a_film_without_sound_is_refused_by_a_sentence(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "silent.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        film.mux(stream.encode())
    with pytest.raises(EffigyError, match="has no sound: choose a file with speech"):
        read_sound(tmp_path / "silent.mp4")


def test_the_demo_knows_how_long_its_sentences_are_without_a_library() -> None:
    for name, seconds in SECONDS.items():
        path = SPEECH / f"{name}.flac"
        assert flac_seconds(path) == pytest.approx(seconds) == read_sound(path).seconds


def test_a_long_sound_is_cut_where_it_is_quietest() -> None:
    samples = tone(40)
    for at in (12.5, 24.0):
        samples[round((at - 0.05) * RATE) : round((at + 0.05) * RATE)] = 0
    cuts = np.array(parts(Sound(samples))) / RATE
    assert cuts[1:3] == pytest.approx((12.5, 24.0), abs=0.05) and cuts[0] == 0 and cuts[-1] == 40
    assert np.all(np.diff(cuts)[:-1] >= SHORTEST) and np.all(np.diff(cuts) <= LONGEST + 1e-9)


def test_words_of_a_text_are_what_is_said_and_what_cannot_be_is_refused() -> None:
    assert words_of("Don’t stop – “Bob's” well-known café!") == ["don't", "stop", "bob's", "well", "known", "café"]
    for text, message in (("room 42", "number 42"), ("привет", "“п”: only English"), ("...", "no words")):
        with pytest.raises(EffigyError, match=message):
            words_of(text)


def test_a_name_that_no_dictionary_has_is_spelt_out() -> None:
    assert phones_of_spelling("beeblebrox") == ["B", "IY", "B", "L", "EH", "B", "R", "AA", "K", "S"]
    assert phones_of_spelling("phib") == ["F", "IH", "B"] and phones_of_spelling("zoé") == ["Z", "AA", "EH"]


def test_noise_and_a_text_that_nobody_speaks() -> None:
    noise = Sound((2000 * np.random.default_rng(1).normal(size=RATE)).astype(np.int16))
    assert recognise(noise, "", SILENT).alphabet == "ARPAbet"
    with pytest.raises(EffigyError, match="The text does not fit the sound"):
        recognise(noise, "nobody speaks these many words in a second of noise", SILENT)
