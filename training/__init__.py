"""Trains and exports the models in ``models/``. Nearly every module is a command; its docstring says how to run it.

::

    data       fer2013.csv (+ fer2013new.csv) -> arrays; class counts and samples as pictures
    duplicates finds faces that are the same picture
    augment    augmentation of a batch
    nudge      a second look at each face of a batch, for steadiness
    model      the net that is shipped
    bodies     other kinds of nets, for teachers
    pretrained dlib's face recognition net, as a start for a teacher
    objective  the loss and its targets
    recipe     every number of a training run, in one TOML file
    setup      device, training faces and initial weights of a training
    loop       the training loop, on a CPU or a GPU
    train      data + recipe -> a checkpoint, and a loss for every sample
    campaign   data + many recipes -> as many nets as a time limit allows
    results    a campaign's results, in files of limited size
    distill    predictions of teachers and votes -> soft targets for another training
    publish    a campaign's results -> soft targets, or model files and all their figures
    card       measures the figures in the model card and the documents again
    doubtful   the losses of the samples -> the labels most likely to be wrong
    export     a checkpoint -> a calibrated ONNX file, checked against torch
    evaluate   an ONNX file -> figures and pictures
    corrupt    image corruptions as cameras cause them, for the evaluation
    sequences  synthetic tracks with known ground truth
    smoothing  compares smoothers by the events they make of a model's scores
    clips      a model's results on real faces in video
    steadiness how much a model's predictions change between frames, and with the box
    acted      a model's events on a film with known changes of expression
    crop       position of FER2013's frame relative to a detector's box
    mtcnn      facenet-pytorch's detector -> ONNX
    manifest   the digests that fer_stream checks model files against
"""
