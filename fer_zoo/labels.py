"""The seven expressions, their order and their colours: the only place that names them."""

# FER2013's own order (the `emotion` column of fer2013.csv), used by every model, file and screen.
EXPRESSIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

# One colour per expression, told apart by the common colour-vision deficiencies (Okabe and Ito 2008).
COLORS = {
    "angry": "#d55e00",
    "disgust": "#009e73",
    "fear": "#cc79a7",
    "happy": "#e69f00",
    "sad": "#0072b2",
    "surprise": "#56b4e9",
    "neutral": "#7f7f7f",
}
