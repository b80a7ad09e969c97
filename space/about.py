"""About: what the models see, what is kept, and where the law forbids their use."""

from __future__ import annotations

import gradio as gr

from .html import bars
from .zoo import by_votes, judged, results

SEES = """
## What it sees, and what not
Every face is cut out, turned gray, reduced to 48x48 pixels and given to a small network that was trained on
FER2013: 28,709 pictures of faces, each labelled with one of seven words; the models called `.ferplus` learnt
the votes of ten people a picture (FER+). The seven percentages say how much the picture resembles what people
called by these words. That is the *expression* in this one picture, never what the person feels: people smile
when they are sad.

It sees no colour, no body, no place, no time before or after the picture. Blurred, turned, covered, made-up
or very small faces, and faces unlike those of FER2013 (found by an image search in 2013), are read less
well. Accuracy was not measured by age, sex or skin colour, which FER2013 does not name: expect it to differ.
People agree with FER2013's labels on about 65 % of its images; a model that scores higher has learnt its
annotators' habits as well. Of faces under about 40 pixels, or a fortieth of the
picture (of a clip, a twenty-seventh), few are found.

The heat map (Grad-CAM) shows which parts of the face raised the score of the chosen expression: nothing
where they did not, red, then yellow where they did most. All seven maps of a face share one scale, so they
can be compared. It shows where the network looked, not why.
"""
PRIVACY = """
## Privacy
Photos, clips and camera pictures are read by the machine that runs this page and passed on to no one.
Live's camera pictures are never written to a file. Of an uploaded file or a snapshot, and of what is made
from it, there are temporary copies, which are deleted after about an hour, or when the app ends. No part of
the page comes from another server.

## Where the law forbids it
In the European Union, AI systems that infer emotions of people at work or in education are prohibited,
except for medical or safety reasons (EU AI Act, Art. 5(1)(f)). Do not use this there, nor for decisions
about people anywhere.

## Licence
Code and weights: Apache-2.0. FER2013's images were found on the web and carry no licence of their own;
whether weights that learnt them suit a commercial use is for you to check.
"""


def about_tab() -> None:
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            gr.Markdown(SEES)
        with gr.Column(scale=2, min_width=300):
            for model in list(results())[:1]:
                clean = judged(model)
                recall = {name: value / 100 for name, value in clean["recall"].items()}
                caption = (
                    f"How many faces of each expression {model} gets right (FER2013, clean test, "
                    f"{clean['n']:,} images{by_votes(model)})"
                )
                gr.HTML(bars(recall, caption, digits=0), elem_id="about-recall", apply_default_css=False)
    gr.Markdown(PRIVACY)
