"""``face-d2-train --data``: from labeled pictures to a trained detector.

:func:`.run.fine_tune` does the whole work; the other modules are its parts, in order: the pictures
(:mod:`.data`), the settings that they ask for (:mod:`.choices`), the length of the training
(:mod:`.pace`), the files that come out (:mod:`.outcome`) and the model card (:mod:`.card`).
"""
