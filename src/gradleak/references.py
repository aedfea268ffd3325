"""The bibliography: what to cite for each method, by key."""

from typing import Protocol

REFERENCES: dict[str, str] = {
    "dlg": """@inproceedings{zhu2019deep,
  title     = {Deep Leakage from Gradients},
  author    = {Zhu, Ligeng and Liu, Zhijian and Han, Song},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {32},
  year      = {2019}
}""",
    "idlg": """@article{zhao2020idlg,
  title   = {{iDLG}: Improved Deep Leakage from Gradients},
  author  = {Zhao, Bo and Mopuri, Konda Reddy and Bilen, Hakan},
  journal = {arXiv preprint arXiv:2001.02610},
  year    = {2020}
}""",
    "inverting_gradients": """@inproceedings{geiping2020inverting,
  title     = {Inverting Gradients -- How Easy Is It to Break Privacy in Federated Learning?},
  author    = {Geiping, Jonas and Bauermeister, Hartmut and Dr{\\"o}ge, Hannah and Moeller, Michael},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020}
}""",
    "cpl": """@inproceedings{wei2020framework,
  title     = {A Framework for Evaluating Client Privacy Leakages in Federated Learning},
  author    = {Wei, Wenqi and Liu, Ling and Loper, Margaret and Chow, Ka-Ho and Gursoy, Mehmet Emre
               and Truex, Stacey and Wu, Yanzhao},
  booktitle = {European Symposium on Research in Computer Security (ESORICS)},
  year      = {2020}
}""",
    "bias": """@article{phong2018privacy,
  title   = {Privacy-Preserving Deep Learning via Additively Homomorphic Encryption},
  author  = {Phong, Le Trieu and Aono, Yoshinori and Hayashi, Takuya and Wang, Lihua and Moriai, Shiho},
  journal = {IEEE Transactions on Information Forensics and Security},
  volume  = {13},
  number  = {5},
  pages   = {1333--1345},
  year    = {2018}
}""",
    "r_gap": """@inproceedings{zhu2021rgap,
  title     = {{R-GAP}: Recursive Gradient Attack on Privacy},
  author    = {Zhu, Junyi and Blaschko, Matthew B.},
  booktitle = {International Conference on Learning Representations},
  year      = {2021}
}""",
    "ssras": """@article{ssras2022,
  author  = {{Hainan University} and others},
  note    = {The authors' names are at the DOI},
  title   = {Recover User's Private Training Image Data by Gradient in Federated Learning},
  journal = {Sensors},
  volume  = {22},
  number  = {19},
  pages   = {7157},
  year    = {2022},
  doi     = {10.3390/s22197157}
}""",
    "spear": """@inproceedings{dimitrov2024spear,
  title     = {{SPEAR}: Exact Gradient Inversion of Batches in Federated Learning},
  author    = {Dimitrov, Dimitar I. and Baader, Maximilian and M{\\"u}ller, Mark Niklas and Vechev, Martin},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {37},
  year      = {2024}
}""",
    "gdl": """@article{geng2021towards,
  title   = {Towards General Deep Leakage in Federated Learning},
  author  = {Geng, Jiahui and Mou, Yongli and Li, Feifei and Li, Qing and Beyan, Oya and Decker, Stefan
             and Rong, Chunming},
  journal = {arXiv preprint arXiv:2110.09074},
  year    = {2021}
}""",
    "gradinversion": """@inproceedings{yin2021see,
  title     = {See through Gradients: Image Batch Recovery via {GradInversion}},
  author    = {Yin, Hongxu and Mallya, Arun and Vahdat, Arash and Alvarez, Jose M. and Kautz, Jan
               and Molchanov, Pavlo},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2021}
}""",
    "feedback_blending": """@article{leite2024federated,
  title   = {Federated Learning under Attack: Improving Gradient Inversion for Batch of Images},
  author  = {Leite, Luiz and Santo, Yuri and Dalmazo, Bruno L. and Riker, Andr{\\'e}},
  journal = {arXiv preprint arXiv:2409.17767},
  year    = {2024}
}""",
    "fedavg_leakage": """@article{dimitrov2022data,
  title   = {Data Leakage in Federated Averaging},
  author  = {Dimitrov, Dimitar I. and Balunovi{\\'c}, Mislav and Konstantinov, Nikola and Vechev, Martin},
  journal = {Transactions on Machine Learning Research},
  year    = {2022}
}""",
    "lbfgs": """@article{byrd1994representations,
  title   = {Representations of Quasi-{N}ewton Matrices and Their Use in Limited Memory Methods},
  author  = {Byrd, Richard H. and Nocedal, Jorge and Schnabel, Robert B.},
  journal = {Mathematical Programming},
  volume  = {63},
  pages   = {129--156},
  year    = {1994}
}""",
    "adam": """@inproceedings{kingma2015adam,
  title     = {Adam: A Method for Stochastic Optimization},
  author    = {Kingma, Diederik P. and Ba, Jimmy},
  booktitle = {International Conference on Learning Representations},
  year      = {2015}
}""",
}


class Citable(Protocol):
    @property
    def citations(self) -> tuple[str, ...]: ...


def cite(method: Citable) -> str:
    """BibTeX of everything that an attack, or another method, is made of: ``cite(gl.attacks.dlg())``."""
    return "\n\n".join(REFERENCES[key] for key in dict.fromkeys(method.citations))
